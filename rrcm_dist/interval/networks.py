"""The paper's networks (Shi et al. 2021, appendix A): CNN-7, Wide-ResNet and ResNeXt, with batch norm throughout."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rrcm_dist.config.ibp import IbpConfig, IbpNetworkConfig
from rrcm_dist.interval.bounds import Box, Signal, pixel_box
from rrcm_dist.interval.initialization import initialize
from rrcm_dist.interval.layers import Normalize, Residual
from rrcm_dist.interval.margins import body_and_head, margin_lower_bounds
from rrcm_dist.interval.propagation import propagate
from rrcm_dist.random_streams import Purpose, stream_key

NEXT_EXPANSION = 2
"""A ResNeXt's block gives so many times the channels of its grouped convolution."""


@dataclass(frozen=True)
class BoundedBatch:
    """A labelled batch gone through the network together with the box around it."""

    logits: Tensor
    """(N, classes), of the clean images."""
    margins: Tensor | None
    """(N, classes) lower bounds of z_y - z_j; None where ε is None."""
    pixels: Box | None
    """The box of the normalised images."""
    relu_inputs: list[Box]
    """The box that enters each ReLU."""


class IbpNetwork(nn.Module):
    """Layers that bounds go through, the first a normalisation of pixels and the last linear."""

    recipe: IbpConfig | None = None
    """What it was trained by, where it was read from a file."""

    def __init__(self, config: IbpNetworkConfig, classes: int, seed: int = 0) -> None:
        """As initialised by the seed, float32 on the CPU."""
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream_key(Purpose.INITIALIZATION, seed, "ibp") & 0xFFFF_FFFF)
            self.layers = nn.Sequential(Normalize(config.mean, config.std), *_hidden_layers(config))
            self.layers.append(nn.Linear(config.hidden, classes))
            if config.initialization == "ibp":
                initialize(self.layers)

    def forward(
        self, images: Tensor, labels: Tensor | None = None, epsilon: float | None = None
    ) -> Tensor | BoundedBatch:
        """(N, C, H, W) float32 [0, 1] pixels → (N, classes) logits; with labels, clean and bounded at once.

        With labels and in training, batch statistics are over all ranks, which must hold equally many images. An
        `epsilon` of None computes no bounds.
        """
        if labels is None:
            logits: Tensor = self.layers(images)
            return logits
        body, head = body_and_head(self.layers)
        signal = Signal(images, None if epsilon is None else pixel_box(images, epsilon))
        relu_inputs: list[Box] = []
        normalised = None
        for name, layer in body:
            signal = propagate(layer, signal, name, relu_inputs)
            normalised = normalised or signal.box  # after the first layer
        assert signal.clean is not None
        margins = None if signal.box is None else margin_lower_bounds(head, signal.box, labels)
        return BoundedBatch(head(signal.clean), margins, normalised, relu_inputs)


def _hidden_layers(config: IbpNetworkConfig) -> list[nn.Module]:
    """Everything between the normalisation and the last layer."""
    layers = {"cnn7": _cnn7, "wide_resnet": _wide_resnet, "resnext": _resnext}[config.kind](config)
    stem = nn.Sequential(*layers).eval()
    with torch.no_grad():
        shape = stem(torch.zeros(1, config.channels, config.image_size, config.image_size))
    stem.train()
    layers += [nn.Flatten(), nn.Linear(shape.numel(), config.hidden, bias=not config.batch_norm)]
    return [*layers, *([nn.BatchNorm1d(config.hidden)] if config.batch_norm else []), nn.ReLU()]


def _cnn7(config: IbpNetworkConfig) -> list[nn.Module]:
    width = config.width
    layers: list[nn.Module] = []
    before: int = config.channels
    for channels, stride in ((width, 1), (width, 1), (2 * width, 2), (2 * width, 1), (2 * width, 1)):
        layers += [*_convolution(config, before, channels, 3, stride), nn.ReLU()]
        before = channels
    return layers


def _wide_resnet(config: IbpNetworkConfig) -> list[nn.Module]:
    layers = [*_convolution(config, config.channels, config.stem, 3), nn.ReLU()]
    before = config.stem
    for channels, stride in _stages(config, config.width):
        main = [
            *_convolution(config, before, channels, 3, stride),
            nn.ReLU(),
            *_convolution(config, channels, channels, 3),
        ]
        layers += [Residual(nn.Sequential(*main), _shortcut(config, before, channels, stride)), nn.ReLU()]
        before = channels
    return layers


def _resnext(config: IbpNetworkConfig) -> list[nn.Module]:
    layers = [*_convolution(config, config.channels, config.stem, 3), nn.ReLU()]
    before = config.stem
    for grouped, stride in _stages(config, config.groups * config.width):
        channels = NEXT_EXPANSION * grouped
        main = [
            *_convolution(config, before, grouped, 1),
            nn.ReLU(),
            *_convolution(config, grouped, grouped, 3, stride, config.groups),
            nn.ReLU(),
            *_convolution(config, grouped, channels, 1),
        ]
        layers += [Residual(nn.Sequential(*main), _shortcut(config, before, channels, stride)), nn.ReLU()]
        before = channels
    return layers


def _stages(config: IbpNetworkConfig, width: int) -> Sequence[tuple[int, int]]:
    """Width and stride of every block: three stages, the second and third of half the size and twice the width."""
    return [(width * 2**stage, 2 if stage and not block else 1) for stage in range(3) for block in range(config.blocks)]


def _shortcut(config: IbpNetworkConfig, before: int, channels: int, stride: int) -> nn.Module:
    if before == channels and stride == 1:
        return nn.Identity()
    return nn.Sequential(*_convolution(config, before, channels, 1, stride))


def _convolution(
    config: IbpNetworkConfig, before: int, channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    # Batch norm cancels a bias before it: it would have no gradient but rounding, of which Adam makes whole steps.
    bias = not config.batch_norm
    layer = nn.Conv2d(before, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)
    return [layer, nn.BatchNorm2d(channels)] if config.batch_norm else [layer]
