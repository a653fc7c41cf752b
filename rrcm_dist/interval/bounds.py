"""Boxes as centre and radius, and what travels through a network: the clean batch and the box around it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rrcm_dist.errors import InvalidInput


@dataclass(frozen=True)
class Box:
    """The interval [centre - radius, centre + radius] of every number; both of one shape, radius ≥ 0.

    Centre and radius, and not the ends: of a narrow interval far from zero the ends would lose the width to rounding.
    """

    centre: Tensor
    radius: Tensor

    @property
    def lower(self) -> Tensor:
        """Least value of each number."""
        return self.centre - self.radius

    @property
    def upper(self) -> Tensor:
        """Greatest value of each number."""
        return self.centre + self.radius


@dataclass(frozen=True)
class Signal:
    """What goes from layer to layer: the clean batch, its box, or both; layers treat both alike."""

    clean: Tensor | None = None
    box: Box | None = None

    def affine(self, points: Callable[[Tensor], Tensor], spread: Callable[[Tensor], Tensor]) -> "Signal":
        """After an affine map: `points` maps clean images and centres, `spread` radii (by its weights' magnitudes)."""
        clean = None if self.clean is None else points(self.clean)
        box = None if self.box is None else Box(points(self.box.centre), spread(self.box.radius))
        return Signal(clean, box)

    def with_box(self, box: Callable[[Box], Box], clean: Callable[[Tensor], Tensor]) -> "Signal":
        """After a map that treats the two differently."""
        return Signal(None if self.clean is None else clean(self.clean), None if self.box is None else box(self.box))

    def without_box(self) -> "Signal":
        """The clean batch alone."""
        return replace(self, box=None)


def pixel_box(images: Tensor, epsilon: float) -> Box:
    """The ℓ∞ ball of radius ε around images of [0, 1] pixels (N, C, H, W), clipped to [0, 1].

    Its radius is computed from ε and the distance to the border, so that a tiny ε is not lost to rounding. Raises
    `InvalidInput` unless 0 ≤ ε ≤ 1.
    """
    require_epsilon(epsilon)
    down, up = images.clamp(max=epsilon), (1 - images).clamp(max=epsilon)
    return Box(images + (up - down) / 2, (up + down) / 2)


def require_epsilon(epsilon: float) -> None:
    """Raise `InvalidInput` unless 0 ≤ ε ≤ 1."""
    if not 0 <= epsilon <= 1:
        raise InvalidInput(f"epsilon {epsilon:g} is no ℓ∞ radius on [0, 1] pixels: give a number from 0 to 1")


def relu_box(box: Box) -> Box:
    """The box of relu(x).

    With h = relu(centre + radius) / 2: an active interval stays, an inactive one is 0, one that crosses 0 becomes
    [0, 2h]; minimum and maximum choose among the three without a subtraction.
    """
    half = torch.relu(box.centre + box.radius) / 2
    return Box(torch.maximum(box.centre, half), torch.minimum(box.radius, half))


def monotone_box(box: Box, function: Callable[[Tensor], Tensor]) -> Box:
    """The box of a function that rises with each of its inputs, such as a maximum."""
    lower, upper = function(box.lower), function(box.upper)
    return Box((upper + lower) / 2, (upper - lower) / 2)
