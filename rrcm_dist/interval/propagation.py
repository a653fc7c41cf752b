"""Through a network layer by layer: what each kind of layer makes of the clean batch and of the box around it.

Only layers of exactly these classes pass: a subclass may compute something else, and a bound must not be wrong.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrcm_dist.errors import InvalidInput
from rrcm_dist.interval.batch_norm import batch_norm_signal
from rrcm_dist.interval.bounds import Box, Signal, monotone_box, relu_box
from rrcm_dist.interval.layers import Normalize, Residual


def propagate(layer: nn.Module, signal: Signal, name: str, relu_inputs: list[Box] | None = None) -> Signal:
    """The signal after `layer`, whose dotted name is for messages.

    Boxes that enter a ReLU are appended to `relu_inputs`, in the order of the network. Raises `InvalidInput` naming
    class and place of a layer that no bounds are known for.
    """
    if type(layer) is nn.Sequential:
        for part, child in _children(layer):
            signal = propagate(child, signal, f"{name}.{part}" if name else part, relu_inputs)
        return signal
    if type(layer) is Residual:
        prefix = f"{name}." if name else ""
        main = propagate(layer.main, signal, prefix + "main", relu_inputs)
        return _sum(main, propagate(layer.shortcut, signal, prefix + "shortcut", relu_inputs))
    if type(layer) is nn.ReLU and relu_inputs is not None and signal.box is not None:
        relu_inputs.append(signal.box)
    return _rule(layer, name)(layer, signal)


def flattened(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Layers of a network with their dotted names; what is nested in an nn.Sequential is given one by one."""
    if type(network) is not nn.Sequential:
        yield "", network
        return
    for part, child in _children(network):
        for below, layer in flattened(child):
            yield f"{part}.{below}" if below else part, layer


def require_bounds(layer: nn.Module, name: str) -> None:
    """Raise `InvalidInput` naming the first layer, here or below, that no bounds are known for."""
    if type(layer) in (nn.Sequential, Residual):
        for part, child in _children(layer):
            require_bounds(child, f"{name}.{part}" if name else part)
    else:
        _rule(layer, name)


def _children(layer: nn.Module) -> list[tuple[str, nn.Module]]:
    """Children by name; one that stands in several places, too (`named_children` gives it once)."""
    return [(part, child) for part, child in layer._modules.items() if child is not None]


def _sum(one: Signal, other: Signal) -> Signal:
    clean = None if one.clean is None or other.clean is None else one.clean + other.clean
    if one.box is None or other.box is None:
        return Signal(clean)
    return Signal(clean, Box(one.box.centre + other.box.centre, one.box.radius + other.box.radius))


def _convolution(layer: nn.Conv2d, signal: Signal) -> Signal:
    # torch's own method, so that every padding mode is treated as the layer itself does.
    return signal.affine(layer, lambda radius: layer._conv_forward(radius, layer.weight.abs(), None))


def _linear(layer: nn.Linear, signal: Signal) -> Signal:
    return signal.affine(layer, lambda radius: F.linear(radius, layer.weight.abs()))


def _normalization(layer: Normalize, signal: Signal) -> Signal:
    return signal.affine(layer, lambda radius: radius / layer.std.abs())


def _relu(layer: nn.ReLU, signal: Signal) -> Signal:
    return signal.with_box(relu_box, torch.relu)  # never in place: a residual branch may need the input, too


def _average(layer: nn.AvgPool2d, signal: Signal) -> Signal:
    # A divisor of the user's may be negative: one sign for all weights, so that magnitudes are taken at the end.
    return signal.affine(layer, lambda radius: layer(radius).abs())


def _same_for_radii(layer: nn.Module, signal: Signal) -> Signal:
    """Layers that are linear with weights ≥ 0: an average, and those that move numbers about."""
    return signal.affine(layer, layer)


def _maximum(layer: nn.Module, signal: Signal) -> Signal:
    def values(x: Tensor) -> Tensor:
        pooled = layer(x)
        return pooled if isinstance(pooled, Tensor) else pooled[0]  # where it was asked for indices, too

    return signal.with_box(lambda box: monotone_box(box, values), values)


def _unchanged(layer: nn.Module, signal: Signal) -> Signal:
    """Dropout in evaluation."""
    return signal


Rule = Callable[[Any, Signal], Signal]

_RULES: dict[type[nn.Module], Rule] = {
    nn.Conv2d: _convolution,
    nn.Linear: _linear,
    Normalize: _normalization,
    nn.BatchNorm1d: batch_norm_signal,
    nn.BatchNorm2d: batch_norm_signal,
    nn.ReLU: _relu,
    nn.AvgPool2d: _average,
    nn.AdaptiveAvgPool2d: _same_for_radii,
    nn.MaxPool2d: _maximum,
    nn.AdaptiveMaxPool2d: _maximum,
    nn.Flatten: _same_for_radii,
    nn.Identity: _same_for_radii,
    nn.Dropout: _unchanged,
    nn.Dropout2d: _unchanged,
}


def _rule(layer: nn.Module, name: str) -> Rule:
    """How bounds go through a layer; `InvalidInput` naming its class and place where they do not."""
    kind, place = type(layer), f"{type(layer).__name__}, layer {name or '(the network itself)'}"
    if kind not in _RULES:
        known = ", ".join(sorted(known.__name__ for known in (*_RULES, nn.Sequential, Residual)))
        raise InvalidInput(f"no bounds are known for {place}: a network must be an nn.Sequential of {known}")
    if kind in (nn.Dropout, nn.Dropout2d) and layer.training:
        raise InvalidInput(f"{place}, has no bounds in training: leave dropout out of a network trained by bounds")
    if kind in (nn.BatchNorm1d, nn.BatchNorm2d) and not layer.training and layer.running_mean is None:
        raise InvalidInput(
            f"{place}, has no running statistics: it mixes the images of a batch, so no bound of one image can be had"
        )
    return _RULES[kind]
