"""The contrastive loss (InfoNCE) against keys that carry no gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor


def nce_loss(queries: Tensor, keys: Tensor, first_positive: int, temperature: float) -> Tensor:
    """-log softmax_j(cos(query_n, key_j) / τ) at the query's positive, for every query (rRCM, section 4 of the method).

    Args:
        queries: (n, D) float.
        keys: (M, D) float, the whole global batch; M ≥ first_positive + n. No gradient flows into them.
        first_positive: the positive of query i is key first_positive + i.
        temperature: τ > 0.

    Returns:
        (n,) float32 losses; logits and logsumexp are float32 whatever the inputs are.
    """
    with torch.autocast(queries.device.type, enabled=False):
        unit_queries = F.normalize(queries.float(), dim=1)
        unit_keys = F.normalize(keys.detach().float(), dim=1)
        logits = unit_queries @ unit_keys.T / temperature
        return torch.logsumexp(logits, dim=1) - logits.diagonal(first_positive)
