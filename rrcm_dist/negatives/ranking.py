"""The samples of a pool ranked by their likeness to queries, without ever holding all cosines."""

import torch
import torch.nn.functional as F
from torch import Tensor

from rrcm_dist.config.estimate import LOGITS_AT_A_TIME
from rrcm_dist.negatives.sharded_rows import ROWS_AT_A_TIME, ShardedRows

NONE = -1
"""Stands for the id of a sample that there is not."""


@torch.no_grad()
def ranked(bank: ShardedRows, queries: Tensor, query_ids: Tensor, limits: Tensor, pool: Tensor, depth: int) -> Tensor:
    """The `depth` samples of the pool that are most like each query, the most alike first.

    Every rank must call it, with the same pool and queries of its own, however many. A query itself, samples whose rows
    are zero (not visited yet) and those at or above the query's limit have no rank.

    Args:
        bank: rows (D) of every sample.
        queries: (q, D) float, of the rank. query_ids: (q,) int64. limits: (q,) float, cosines.
        pool: (P,) int64 sample ids.
        depth: ranks wanted.

    Returns:
        (q, depth) int64 sample ids, `NONE` where there are fewer.
    """
    unit_queries = F.normalize(queries.float(), dim=1)
    cosines = unit_queries.new_full((len(queries), depth), -torch.inf)
    ids = torch.full((len(queries), depth), NONE, device=queries.device)
    size = max(1, LOGITS_AT_A_TIME // (ROWS_AT_A_TIME + depth))
    for pool_ids in pool.split(ROWS_AT_A_TIME):
        rows = bank.fetch(pool_ids).float()
        keys, empty = F.normalize(rows, dim=1), rows.square().sum(dim=1) == 0
        for start in range(0, len(queries), size):
            part = slice(start, start + size)
            found = unit_queries[part] @ keys.T
            outside = (pool_ids == query_ids[part, None]) | empty | (found >= limits[part, None])
            found = torch.cat([cosines[part], found.masked_fill_(outside, -torch.inf)], dim=1)
            named = torch.cat([ids[part], pool_ids.expand(len(outside), -1)], dim=1)
            cosines[part], best = found.topk(depth, dim=1)
            ids[part] = named.gather(1, best)
    return ids.masked_fill_(cosines == -torch.inf, NONE)
