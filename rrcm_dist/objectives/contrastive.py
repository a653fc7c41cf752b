"""The contrastive loss (InfoNCE) against keys that carry no gradient."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rrcm_dist.config.estimate import LOGITS_AT_A_TIME


def nce_loss(queries: Tensor, keys: Tensor, first_positive: int, temperature: float) -> Tensor:
    """-log softmax_j(cos(query_n, key_j) / τ) at the query's positive, for every query (rRCM, section 4 of the method).

    Args:
        queries: (n, D) float.
        keys: (M, D) float, the whole global batch; M ≥ first_positive + n. No gradient flows into them.
        first_positive: the positive of query i is key first_positive + i.
        temperature: τ > 0.

    Returns:
        (n,) float32 losses; logits and logsumexp are float32 whatever the inputs are. Differentiable once.
    """
    with torch.autocast(queries.device.type, enabled=False):
        unit_queries = F.normalize(queries.float(), dim=1)
        unit_keys = F.normalize(keys.detach().float(), dim=1)
        losses: Tensor = _CrossEntropyByRows.apply(unit_queries, unit_keys, first_positive, temperature)
        return losses


class _CrossEntropyByRows(torch.autograd.Function):
    """Cross-entropy of queries · keys / τ, which never holds all (n, M) logits.

    A row's gradient follows from its own logits alone, so it is made while these are at hand: as many operations as an
    ordinary backward pass takes, and nothing is kept for it but the gradient of the queries' size.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, first_positive: int, temperature: float) -> Tensor:
        losses = queries.new_empty(len(queries))
        gradient = torch.empty_like(queries) if ctx.needs_input_grad[0] else None
        size = max(1, LOGITS_AT_A_TIME // len(keys))
        for start in range(0, len(queries), size):
            rows = slice(start, start + size)
            logits = (queries[rows] @ keys.T).div_(temperature)
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
    def backward(ctx: Any, output_gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * output_gradient[:, None], None, None, None
