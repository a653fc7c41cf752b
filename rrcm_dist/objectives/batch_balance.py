"""The cross-GPU batch balance loss (Conan-embedding, Li et al. 2024, arXiv 2408.15710): InfoNCE with the hard negatives
of every rank, and β · CoSENT over the graded pairs of every rank, in one update.

Usable by itself: tensors in, a loss out. Under the project's convention (a rank's loss is the mean over its own rows,
gradients are averaged over ranks, as DistributedDataParallel does) loss and gradients are those of one process on the
concatenation of all ranks' tensors, to rounding; gradients flow to the rank that a tensor came from.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rrcm_dist.distributed.collectives import own_rank, ranks, sum_over_ranks
from rrcm_dist.errors import InvalidInput

BETA = 0.8
"""As published."""


@dataclass(frozen=True)
class GradedPairs:
    """Pairs of representations of which some are known to be more alike than others; m, equal on every rank."""

    first: Tensor
    """(m, D) float."""
    second: Tensor
    """(m, D) float."""
    grades: Tensor
    """(m,) number: only their order counts, over the pairs of all ranks; equal ones are not compared."""


@dataclass(frozen=True)
class BatchBalanceLoss:
    """Scalar parts, float32 (float64 for inputs of that type)."""

    contrastive: Tensor
    """InfoNCE, mean over this rank's queries."""
    ordinal: Tensor
    """CoSENT over the pairs of all ranks, the same on every rank; unweighted."""
    total: Tensor
    """contrastive + β · ordinal."""


def batch_balance_loss(
    queries: Tensor, positives: Tensor, negatives: Tensor, pairs: GradedPairs, temperature: float, beta: float = BETA
) -> BatchBalanceLoss:
    """mean_i InfoNCE_i + β · CoSENT. Every rank must call it, with tensors of the same shapes.

    InfoNCE_i = -log[ e^(s+ / τ) / (e^(s+ / τ) + Σ_ranks Σ_j e^(s-_j / τ)) ], s the cosine of query i

    Args:
        queries: (n, D) float.
        positives: (n, D) float, of each query its own.
        negatives: (m, D) or (n, k, D) float; those of every rank stand in every query's denominator.
        pairs: for CoSENT.
        temperature: τ > 0 of both parts.
        beta: β ≥ 0.

    Raises `InvalidInput` for shapes that do not go together.
    """
    _check(queries, positives, negatives, pairs, temperature)
    with torch.autocast(queries.device.type, enabled=False):
        contrastive = hard_negative_nce(queries, positives, negatives, temperature).mean()
        ordinal = cosent_loss(pairs, temperature)
        return BatchBalanceLoss(contrastive, ordinal, contrastive + beta * ordinal)


def hard_negative_nce(queries: Tensor, positives: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """(n,) InfoNCE of this rank's queries against the negatives of every rank; arguments of `batch_balance_loss`.

    Holds n × (negatives of all ranks) logits.
    """
    unit_queries = _unit(queries)
    positive = (unit_queries * _unit(positives)).sum(dim=1, keepdim=True)
    others = unit_queries @ gather_with_gradient(_unit(negatives.reshape(-1, negatives.shape[-1]))).T
    logits = torch.cat([positive, others], dim=1) / temperature
    return torch.logsumexp(logits, dim=1) - logits[:, 0]


def cosent_loss(pairs: GradedPairs, temperature: float) -> Tensor:
    """log(1 + Σ exp((cos_kl - cos_ij) / τ)) over all (ij), (kl) of all ranks with grade(ij) > grade(kl); a scalar.

    Every rank must call it and gets the same number. The sum over M² combinations is taken in M log M operations and M
    numbers of memory, M the pairs of all ranks: in ascending order of grades, the sum over lower pairs is a cumulative
    one.
    """
    cosines = (_unit(pairs.first) * _unit(pairs.second)).sum(dim=1)
    scores = gather_with_gradient(cosines[:, None])[:, 0] / temperature
    grades, order = gather_with_gradient(pairs.grades.detach().to(scores.dtype)[:, None])[:, 0].sort()
    scores = scores[order]
    lower = torch.searchsorted(grades, grades, right=False)  # pairs of a lower grade
    below = torch.logcumsumexp(scores, dim=0)[(lower - 1).clamp(min=0)]
    terms = torch.where(lower > 0, below - scores, -torch.inf)
    return torch.logsumexp(torch.cat([terms, terms.new_zeros(1)]), dim=0)


def gather_with_gradient(rows: Tensor) -> Tensor:
    """(n, …) on every rank, equal n → (n · ranks, …) in the order of ranks; gradients come back summed over ranks.

    A sum of blocks that are zero but for one rank's own: exact, at twice the traffic of a gather.
    """
    if ranks() == 1:
        return rows
    blocks = [rows if rank == own_rank() else torch.zeros_like(rows) for rank in range(ranks())]
    return sum_over_ranks(torch.cat(blocks))


def _unit(rows: Tensor) -> Tensor:
    """Of norm 1, in float32 at least."""
    return F.normalize(rows if rows.dtype == torch.float64 else rows.float(), dim=-1)


def _check(queries: Tensor, positives: Tensor, negatives: Tensor, pairs: GradedPairs, temperature: float) -> None:
    if temperature <= 0:
        raise InvalidInput(f"temperature {temperature} must be above 0")
    if queries.ndim != 2 or positives.shape != queries.shape:
        raise InvalidInput(
            f"queries {tuple(queries.shape)} and positives {tuple(positives.shape)} must both be (n, D), one of "
            "each for every query"
        )
    if negatives.ndim not in (2, 3) or negatives.shape[-1] != queries.shape[1]:
        raise InvalidInput(
            f"negatives {tuple(negatives.shape)} must be (m, {queries.shape[1]}) or (n, k, {queries.shape[1]}), of the "
            "queries' width"
        )
    if negatives.ndim == 3 and len(negatives) != len(queries):
        raise InvalidInput(f"negatives are of {len(negatives)} queries, and there are {len(queries)}: give k of each")
    if pairs.first.shape != pairs.second.shape or pairs.first.ndim != 2 or pairs.grades.shape != pairs.first.shape[:1]:
        raise InvalidInput(
            f"graded pairs {tuple(pairs.first.shape)}, {tuple(pairs.second.shape)} with grades "
            f"{tuple(pairs.grades.shape)} must be (m, D), (m, D) and (m,)"
        )
