"""The columns that hard negatives add to the denominators of a batch."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rrcm_dist.config.estimate import LOGITS_AT_A_TIME
from rrcm_dist.negatives.ranking import NONE


@dataclass(frozen=True)
class Columns:
    """Columns for this rank's queries."""

    keys: Tensor
    """(K, D) float32."""
    banned: Tensor
    """bool (n, K): columns that do not count for a query."""
    banned_share: Tensor
    """() float32: share of them among the columns of a query, its own where only these are used."""
    cosine: Tensor
    """() float32: mean cosine of queries to the columns that count."""


@torch.no_grad()
def columns(
    queries: Tensor, query_ids: Tensor, limits: Tensor, keys: Tensor, key_ids: Tensor, own: slice | None = None
) -> Columns:
    """The negatives of a whole batch as columns of a rank's queries.

    Banned for a query are its own sample, negatives that there are not (`NONE`, or a row of zeros: not visited yet),
    and those at or above its limit.

    Args:
        queries: (n, D) float, of the rank. query_ids: (n,) int64. limits: (n,) float, cosines.
        keys: (B, m, D) float, the negatives of every sample of the batch. key_ids: (B, m) int64.
        own: the rank's rows of the batch, where a query takes its own m negatives alone; None takes everybody's.
    """
    each = keys.shape[1]
    if own is not None:
        keys, key_ids = keys[own], key_ids[own]
    keys, key_ids = keys.flatten(0, 1).float(), key_ids.flatten()
    unit_queries, unit_keys = F.normalize(queries.float(), dim=1), F.normalize(keys, dim=1)
    missing = (key_ids == NONE) | (keys.square().sum(dim=1) == 0)
    banned = torch.empty((len(queries), len(keys)), dtype=torch.bool, device=keys.device)
    total = torch.zeros((), device=keys.device)
    size = max(1, LOGITS_AT_A_TIME // len(keys))
    owners = torch.arange(len(keys), device=keys.device) // each
    for start in range(0, len(queries), size):
        rows = slice(start, start + size)
        cosines = unit_queries[rows] @ unit_keys.T
        part = missing | (key_ids == query_ids[rows, None]) | (cosines >= limits[rows, None])
        if own is not None:
            part |= owners != torch.arange(len(queries), device=keys.device)[rows, None]
        banned[rows] = part
        total += cosines.masked_fill_(part, 0).sum()
    counting, possible = (~banned).sum(), len(queries) * (each if own is not None else len(keys))
    return Columns(keys, banned, 1 - counting / possible, total / counting.clamp(min=1))
