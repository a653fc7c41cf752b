"""A guard against false negatives: samples so like the query that they are likely of its own kind."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Guard:
    """How like a query a negative may be, by the cosine of their representations; no labels are looked at."""

    ceiling: float | None = None
    """Negatives at or above this cosine are banned; None bans none."""
    of_agreement: float | None = None
    """Negatives are banned at or above this share of the cosine between the query's own two views (positive-aware
    mining: Moreira et al. 2024, arXiv 2407.15831); None bans none."""

    def limit(self, agreement: Tensor) -> Tensor:
        """(n,) cosines between the two views of queries → (n,) cosines at which a negative of theirs is banned."""
        limit = torch.full_like(agreement, torch.inf)
        if self.ceiling is not None:
            limit = limit.clamp(max=self.ceiling)
        if self.of_agreement is not None:
            limit = torch.minimum(limit, self.of_agreement * agreement)
        return limit
