"""The IBP initialisation (Shi et al. 2021, section 3.1): bounds that keep their width from layer to layer."""

import math

import torch
from torch import nn

from rrcm_dist.interval.layers import Residual
from rrcm_dist.interval.margins import body_and_head


def initialize(network: nn.Sequential) -> None:
    """Weights of convolutions and linear layers ~ N(0, σ²), σ = √(2π) / fan-in, in place; not the last layer's.

    A bound of width Δ in becomes one of fan-in · E|w| · Δ/2 behind a ReLU, which is Δ for E|w| = 2 / fan-in. A ReLU
    whose input is a sum of two branches gets twice the width, so layers that it feeds have half the weights. Drawn from
    torch's default generator.
    """
    body, _ = body_and_head(network)
    _initialize(body, after_sum=False)


def _initialize(layers: list[tuple[str, nn.Module]], after_sum: bool) -> bool:
    """`after_sum`: what comes in is the sum of two branches; returns whether what goes out is."""
    for _, layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in = layer.weight[0].numel()
            torch.nn.init.normal_(layer.weight, std=math.sqrt(2 * math.pi) / fan_in / (2 if after_sum else 1))
            after_sum = False
        elif isinstance(layer, nn.Sequential):
            after_sum = _initialize(list(layer.named_children()), after_sum)
        elif isinstance(layer, Residual):
            _initialize([("main", layer.main)], after_sum)
            _initialize([("shortcut", layer.shortcut)], after_sum)
            after_sum = True
    return after_sum
