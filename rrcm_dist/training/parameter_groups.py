"""Which learning rate and weight decay each parameter gets."""

import re
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning-rate factor and a weight decay."""

    parameters: list[nn.Parameter]
    lr_factor: float
    """Share of the schedule's learning rate."""
    weight_decay: float


def one_group(network: nn.Module, weight_decay: float) -> list[ParameterGroup]:
    """Every trainable parameter alike, biases and norms included (as in the released pre-training)."""
    return [ParameterGroup([p for p in network.parameters() if p.requires_grad], 1.0, weight_decay)]


def layer_decay_groups(network: nn.Module, depth: int, layer_decay: float, weight_decay: float) -> list[ParameterGroup]:
    """Learning rates that shrink by `layer_decay` per layer from the head down (Clark et al. 2020; BEiT's layout).

    Tokens, positions and the patch embedding are layer 0, block i is layer i + 1, final norm and head are layer
    depth + 1, whose factor is 1. Biases and norms (one-dimensional parameters) get no weight decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            key = lr_factor_and_decay(name, parameter.ndim, depth, layer_decay, weight_decay)
            groups.setdefault(key, []).append(parameter)
    return [ParameterGroup(parameters, *key) for key, parameters in groups.items()]


def lr_factor_and_decay(
    name: str, dimensions: int, depth: int, layer_decay: float, weight_decay: float
) -> tuple[float, float]:
    """Learning-rate factor and weight decay of a parameter of the fine-tuning network, by its name."""
    block = re.match(r"encoder\.blocks\.(\d+)\.", name)
    if block:
        layer = int(block.group(1)) + 1
    elif name.startswith(("encoder.cls_token", "encoder.pos_embed", "encoder.patch_embed.")):
        layer = 0
    else:
        layer = depth + 1
    return layer_decay ** (depth + 1 - layer), 0.0 if dimensions == 1 else weight_decay
