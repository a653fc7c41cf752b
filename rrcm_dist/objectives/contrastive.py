"""The contrastive loss (InfoNCE) against keys that carry no gradient."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rrcm_dist.config.estimate import LOGITS_AT_A_TIME


@dataclass(frozen=True)
class Negatives:
    """Keys that stand in the denominator alone, beside those of the batch."""

    keys: Tensor
    """(K, D) float; no gradient flows into them."""
    banned: Tensor | None = None
    """bool (n, K): which of them do not count for which query of this rank; None where all count for all."""

    @staticmethod
    def joined(parts: Sequence["Negatives"]) -> "Negatives | None":
        """Those of all `parts`, of the same queries; None where there are none."""
        if len(parts) < 2:
            return parts[0] if parts else None
        rows = next((len(part.banned) for part in parts if part.banned is not None), None)
        if rows is None:
            return Negatives(torch.cat([part.keys for part in parts]))
        none = [part.keys.new_zeros((rows, len(part.keys)), dtype=torch.bool) for part in parts]
        banned = [each if part.banned is None else part.banned for part, each in zip(parts, none, strict=True)]
        return Negatives(torch.cat([part.keys for part in parts]), torch.cat(banned, dim=1))


def nce_loss(
    queries: Tensor, keys: Tensor, first_positive: int, temperature: float, negatives: Negatives | None = None
) -> Tensor:
    """-log softmax_j(cos(query_n, key_j) / τ) at the query's positive, for every query (rRCM, section 4 of the method).

    Args:
        queries: (n, D) float.
        keys: (M, D) float, the whole global batch; M ≥ first_positive + n. No gradient flows into them.
        first_positive: the positive of query i is key first_positive + i.
        temperature: τ > 0.
        negatives: further keys of the denominator.

    Returns:
        (n,) float32 losses; logits and logsumexp are float32 whatever the inputs are. Differentiable once.
    """
    with torch.autocast(queries.device.type, enabled=False):
        unit_queries = F.normalize(queries.float(), dim=1)
        more, banned = ([negatives.keys], negatives.banned) if negatives is not None else ([], None)
        unit_keys = F.normalize(torch.cat([keys, *more]).detach().float(), dim=1)
        losses: Tensor = _CrossEntropyByRows.apply(unit_queries, unit_keys, first_positive, temperature, banned)
        return losses


class _CrossEntropyByRows(torch.autograd.Function):
    """Cross-entropy of queries · keys / τ, which never holds all (n, M) logits.

    A row's gradient follows from its own logits alone, so it is made while these are at hand: as many operations as an
    ordinary backward pass takes, and nothing is kept for it but the gradient of the queries' size.
    """

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, first_positive: int, temperature: float, banned: Tensor | None
    ) -> Tensor:
        losses = queries.new_empty(len(queries))
        gradient = torch.empty_like(queries) if ctx.needs_input_grad[0] else None
        size = max(1, LOGITS_AT_A_TIME // len(keys))
        for start in range(0, len(queries), size):
            rows = slice(start, start + size)
            logits = (queries[rows] @ keys.T).div_(temperature)
            if banned is not None:
                logits[:, -banned.shape[1] :].masked_fill_(banned[rows], -torch.inf)
            positives = logits.diagonal(first_positive + start)
            normalizers = torch.logsumexp(logits, dim=1)
            losses[rows] = normalizers - positives
            if gradient is not None:
                probabilities = logits.sub_(normalizers[:, None]).exp_()
                positives.sub_(1)
                torch.mm(probabilities, keys, out=gradient[rows])
        if gradient is not None:
            ctx.save_for_backward(gradient.div_(temperature))
        return losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, output_gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * output_gradient[:, None], None, None, None, None
