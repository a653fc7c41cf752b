"""The two regularisers of the warm-up (Shi et al. 2021, section 3.3), of the whole batch over all ranks.

Each is a mean over the boxes that enter the network's ReLUs. The ranks' sums are added before anything that is not
linear, so that the number of ranks changes nothing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rrcm_dist.distributed.collectives import ranks, sum_over_ranks
from rrcm_dist.interval.bounds import Box

_TINY = 1e-12


def tightness(pixels: Box, relu_inputs: Sequence[Box], tolerance: float) -> Tensor:
    """(1/τm) Σᵢ relu(τ - Δ₀/Δᵢ): bounds that grow wider with depth cost.

    Args:
        pixels: the box of the normalised images; Δ₀ is its mean radius.
        relu_inputs: the m boxes that enter a ReLU; Δᵢ are their mean radii.
        tolerance: τ.

    Returns:
        Scalar, the same on every rank.
    """
    widths = sum_over_ranks(torch.stack([box.radius.mean() for box in (pixels, *relu_inputs)])) / ranks()
    ratios = widths[0] / widths[1:].clamp(min=_TINY)
    return torch.relu(tolerance - ratios).mean() / tolerance


def balance(relu_inputs: Sequence[Box], tolerance: float) -> Tensor:
    """(1/τm) Σᵢ [relu(τ - min(a, 1/a)) + relu(τ - min(b, 1/b))]: active and inactive units out of balance cost.

    a is the sum of the centres of active units (lower bound > 0) over that of inactive ones (upper bound < 0), negated;
    b the same of squared distances from the mean centre. A layer without active or inactive units costs the most and
    has no gradient; one without either is left out.

    Args:
        relu_inputs: the m boxes that enter a ReLU.
        tolerance: τ.

    Returns:
        Scalar, the same on every rank.
    """
    active = [box.lower > 0 for box in relu_inputs]
    inactive = [box.upper < 0 for box in relu_inputs]
    sums = [
        torch.stack([box.centre.sum() / box.centre.numel(), (box.centre * on).sum(), -(box.centre * off).sum()])
        for box, on, off in zip(relu_inputs, active, inactive, strict=True)
    ]
    over_ranks = sum_over_ranks(torch.stack(sums))  # (m, 3)
    means = over_ranks[:, 0] / ranks()
    squares = []
    for mean, box, on, off in zip(means, relu_inputs, active, inactive, strict=True):
        distances = (box.centre - mean).square()
        squares.append(torch.stack([(distances * on).sum(), (distances * off).sum()]))
    costs = _imbalance(over_ranks[:, 1:], tolerance) + _imbalance(sum_over_ranks(torch.stack(squares)), tolerance)
    return costs.mean() / tolerance


def _imbalance(pairs: Tensor, tolerance: float) -> Tensor:
    """(m, 2) sums ≥ 0 of active and inactive units → (m,) relu(τ - ratio of the smaller to the larger)."""
    larger = pairs.amax(dim=1)
    ratio = pairs.amin(dim=1) / larger.clamp(min=_TINY)
    return torch.relu(tolerance - ratio) * (larger > _TINY)
