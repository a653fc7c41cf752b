"""When a query's hard negatives are replaced, and by which (Conan-embedding, Li et al. 2024, arXiv 2408.15710)."""

import torch
from torch import Tensor


def is_due(now: Tensor, then: Tensor, factor: float, largest: float) -> Tensor:
    """factor · S < S0, S < S0 and |S| < largest: the negatives have become easy.

    Args:
        now: S, float: mean cosine of queries to their negatives.
        then: S0, of the same shape: what it was when they were assigned.
        factor: 1.15 as published.
        largest: 0.8 as published.
    """
    # For S0 ≥ 0 and factor ≥ 1 the second is implied, and this is the published rule: S < 0 is below S0 anyway, and
    # S ≥ 0 gives S ≤ factor · S < S0. Below zero the first alone holds for S = S0: nothing has fallen there.
    return (factor * now < then) & (now < then) & (now.abs() < largest)


def window(number: Tensor, count: int, skip: int) -> Tensor:
    """Ranks, from 0 on, of the i-th assignment: [(i - 1) · n + skip, i · n + skip).

    Args:
        number: i ≥ 1, (q,) int64.
        count: n.
        skip: ranks that are left out as likely positives; 10 as published.

    Returns:
        (q, n) int64.
    """
    return (number[:, None] - 1) * count + skip + torch.arange(count, device=number.device)
