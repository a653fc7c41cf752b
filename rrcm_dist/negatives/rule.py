"""When a query's hard negatives are replaced, and by which (Conan-embedding, Li et al. 2024, arXiv 2408.15710)."""

import torch
from torch import Tensor


def is_due(now: Tensor, then: Tensor, factor: float, largest: float) -> Tensor:
    """factor · S < S0, |S| < largest, and where S0 < 0 also S < S0: the negatives have become easy.

    Args:
        now: S, float: mean cosine of queries to their negatives.
        then: S0, of the same shape: what it was when they were assigned.
        factor: 1.15 as published.
        largest: 0.8 as published.
    """
    # Below zero the published rule alone holds for S = S0, and would replace negatives that never changed.
    return (factor * now < then) & ((now < then) | (then >= 0)) & (now.abs() < largest)


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
