"""What certified training by bounds costs: parameters, FLOPs, memory. Formulas over the types, as in `estimate`.

Parameters are exact. A FLOP is a multiplication or an addition of a convolution or a matrix product.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rrcm_dist.config.ibp import IbpConfig, IbpNetworkConfig

SIGNALS = 3
"""What goes through the network: the clean images, the centres of their boxes, the radii."""
BACKWARD = 2
"""A backward pass in forward passes."""
KEPT = 4
"""Values that a convolution leaves for the backward pass, per output: its own, batch norm's two, the ReLU's."""
RESERVED_BYTES = 2e9
"""Context, communication buffers and workspaces: a guess."""


@dataclass(frozen=True)
class Layer:
    """A convolution or a linear layer, with the batch norm behind it."""

    name: str
    parameters: int
    products: int
    """Multiplications for one image."""
    outputs: int
    """Numbers that it gives for one image."""


def network_parameters(recipe: IbpConfig) -> int:
    """Parameters of the network."""
    return sum(layer.parameters for layer in network_layers(recipe.network, recipe.classes))


def forward_flops(recipe: IbpConfig) -> float:
    """FLOPs of classifying one image."""
    return 2.0 * sum(layer.products for layer in network_layers(recipe.network, recipe.classes))


def bounded_flops(recipe: IbpConfig) -> float:
    """FLOPs of one image's clean pass and bounds together; the margins' matrix adds classes times the last layer."""
    last = 2 * 2.0 * recipe.network.hidden * recipe.classes
    return SIGNALS * forward_flops(recipe) + last


def step_flops(recipe: IbpConfig) -> float:
    """FLOPs that one step with bounds needs on its global batch, forward and backward."""
    return recipe.training.batch * (1 + BACKWARD) * bounded_flops(recipe)


def memory_bytes(recipe: IbpConfig, gpus: int) -> dict[str, float]:
    """Estimated peak memory of one GPU by use, bytes."""
    stage, share = recipe.training.zero_stage, -(-recipe.training.batch // gpus)
    state_bytes = 4.0 * network_parameters(recipe)
    outputs = sum(layer.outputs for layer in network_layers(recipe.network, recipe.classes))
    return {
        "weights": state_bytes * (1 + len(recipe.training.averages)),
        "gradients": state_bytes / (gpus if stage >= 2 else 1),
        "optimiser": 2 * state_bytes if stage == 0 else 3 * state_bytes / gpus,
        "activations": 4.0 * share * SIGNALS * KEPT * outputs,
        "margins": 4.0 * share * 3 * recipe.network.hidden * recipe.classes,
        "reserved": RESERVED_BYTES,
    }


def network_layers(config: IbpNetworkConfig, classes: int) -> list[Layer]:
    """Convolutions and linear layers in the order of the network."""
    size = config.image_size
    kinds = {"cnn7": _cnn7, "wide_resnet": _wide_resnet, "resnext": _resnext}
    layers = list(kinds[config.kind](config))
    halvings = 1 if config.kind == "cnn7" else 2
    for _ in range(halvings):
        size = _halved(size)
    flat = _last_channels(config) * size**2
    layers.append(
        Layer("hidden", flat * config.hidden + _shifts(config, config.hidden), flat * config.hidden, config.hidden)
    )
    layers.append(Layer("last", (config.hidden + 1) * classes, config.hidden * classes, classes))
    return layers


def _halved(size: int) -> int:
    return (size + 1) // 2


def _shifts(config: IbpNetworkConfig, channels: int) -> int:
    """Parameters besides the weights: batch norm's two per channel, or a bias."""
    return (2 if config.batch_norm else 1) * channels


def _last_channels(config: IbpNetworkConfig) -> int:
    if config.kind == "cnn7":
        return 2 * config.width
    return 4 * config.width * (2 * config.groups if config.kind == "resnext" else 1)


def _convolution(
    config: IbpNetworkConfig, name: str, before: int, channels: int, kernel: int, size: int, groups: int = 1
) -> Layer:
    weights = channels * (before // groups) * kernel**2
    return Layer(name, weights + _shifts(config, channels), weights * size**2, channels * size**2)


def _cnn7(config: IbpNetworkConfig) -> Iterator[Layer]:
    size, before = config.image_size, int(config.channels)
    for place, factor in enumerate((1, 1, 2, 2, 2)):
        if place == 2:
            size = _halved(size)
        yield _convolution(config, f"convolution {place + 1}", before, factor * config.width, 3, size)
        before = factor * config.width


def _wide_resnet(config: IbpNetworkConfig) -> Iterator[Layer]:
    yield _convolution(config, "stem", config.channels, config.stem, 3, config.image_size)
    for name, before, channels, size, after in _blocks(config, config.width, 1):
        yield _convolution(config, f"{name} first", before, channels, 3, after)
        yield _convolution(config, f"{name} second", channels, channels, 3, after)
        yield from _shortcut(config, name, before, channels, size, after)


def _resnext(config: IbpNetworkConfig) -> Iterator[Layer]:
    yield _convolution(config, "stem", config.channels, config.stem, 3, config.image_size)
    for name, before, channels, size, after in _blocks(config, config.groups * config.width, 2):
        grouped = channels // 2
        yield _convolution(config, f"{name} first", before, grouped, 1, size)
        yield _convolution(config, f"{name} grouped", grouped, grouped, 3, after, config.groups)
        yield _convolution(config, f"{name} last", grouped, channels, 1, after)
        yield from _shortcut(config, name, before, channels, size, after)


def _blocks(config: IbpNetworkConfig, width: int, expansion: int) -> Iterator[tuple[str, int, int, int, int]]:
    """Name, channels in and out, image size before and after, of every residual block."""
    size, before = config.image_size, config.stem
    for stage in range(3):
        for block in range(config.blocks):
            after = _halved(size) if stage and not block else size
            channels = expansion * width * 2**stage
            yield f"block {stage + 1}.{block + 1}", before, channels, size, after
            size, before = after, channels


def _shortcut(
    config: IbpNetworkConfig, name: str, before: int, channels: int, size: int, after: int
) -> Iterator[Layer]:
    if before != channels or size != after:
        yield _convolution(config, f"{name} shortcut", before, channels, 1, after)
