"""The rRCM pre-training loss (Lei et al. 2025), and the one place where it gathers keys over ranks."""

from dataclasses import dataclass

from torch import Tensor

from rrcm_dist.distributed.collectives import gather_over_ranks, own_rank
from rrcm_dist.objectives.contrastive import nce_loss


@dataclass(frozen=True)
class PretrainingLoss:
    """Per-image parts, (n,) float32 each, for this rank's rows of the global batch."""

    contrastive: Tensor
    consistency: Tensor

    @property
    def mean(self) -> Tensor:
        """The rank's loss: mean over its rows of both parts."""
        return (self.contrastive + self.consistency).mean()


def pretraining_loss(
    projections: Tensor, noisier: Tensor, target_projections: Tensor, less_noisy: Tensor, temperature: float
) -> PretrainingLoss:
    """Contrastive loss of two views against the target network's, and consistency along the noise trajectory.

    contrastive = NCE(proj(online(A)), proj(target(B))) + NCE(proj(online(B)), proj(target(A)))
    consistency = NCE(rep(online(P)), stopgrad rep(online(Q)))

    Args:
        projections: (2, n, output), online projections of A and B; with gradient.
        noisier: (n, D), online representations of P (level t_i); with gradient.
        target_projections: (2, n, output), target projections of A and B.
        less_noisy: (n, D), online representations of Q (level t_(i+1)).
        temperature: τ of both parts.

    The keys of all ranks are gathered; n is the same on every rank.
    """
    n = len(noisier)
    keys_a, keys_b = gather_over_ranks(target_projections[0]), gather_over_ranks(target_projections[1])
    keys_q = gather_over_ranks(less_noisy)
    first = own_rank() * n
    contrastive_a = nce_loss(projections[0], keys_b, first, temperature)
    contrastive_b = nce_loss(projections[1], keys_a, first, temperature)
    return PretrainingLoss(contrastive_a + contrastive_b, nce_loss(noisier, keys_q, first, temperature))
