"""Layers of our own that bounds go through: two branches and their sum, and the normalisation of pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """main(x) + shortcut(x)."""

    def __init__(self, main: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.main, self.shortcut = main, shortcut

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both branches."""
        return self.main(x) + self.shortcut(x)


class Normalize(nn.Module):
    """(x - mean) / std per channel, of (N, C, H, W); a layer, so that ε stays one of [0, 1] pixels."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """One number per channel, or one for all."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images."""
        return (x - self.mean) / self.std
