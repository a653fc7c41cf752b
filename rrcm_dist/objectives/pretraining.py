"""The rRCM pre-training loss (Lei et al. 2025), and the one place where it gathers keys over ranks."""

from dataclasses import dataclass

from torch import Tensor

from rrcm_dist.distributed.collectives import Gathering, own_rank
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


class PretrainingKeys:
    """The keys of every rank, gathered while the online network makes its queries.

    The projections are sent as soon as they are there, before the less noisy representations are computed.
    """

    def __init__(self, target_projections: Tensor) -> None:
        """`target_projections`: (2, n, output), of views A and B; n is the same on every rank."""
        self._views = [Gathering(view) for view in target_projections]

    def add_less_noisy(self, representations: Tensor) -> None:
        """(n, D) online representations of view Q (level t_(i+1))."""
        self._less_noisy = Gathering(representations)

    def wait(self) -> tuple[Tensor, Tensor, Tensor]:
        """Projections of A and of B (batch, output) and representations of Q (batch, D) of the global batch."""
        keys_a, keys_b = (view.wait() for view in self._views)
        return keys_a, keys_b, self._less_noisy.wait()


def pretraining_loss(
    projections: Tensor, noisier: Tensor, keys: PretrainingKeys, temperature: float
) -> PretrainingLoss:
    """Contrastive loss of two views against the target network's, and consistency along the noise trajectory.

    contrastive = NCE(proj(online(A)), proj(target(B))) + NCE(proj(online(B)), proj(target(A)))
    consistency = NCE(rep(online(P)), stopgrad rep(online(Q)))

    Args:
        projections: (2, n, output), online projections of A and B; with gradient.
        noisier: (n, D), online representations of P (level t_i); with gradient.
        keys: of all ranks, on their way; this rank's rows among them are its own n.
        temperature: τ of both parts.
    """
    keys_a, keys_b, keys_q = keys.wait()
    first = own_rank() * len(noisier)
    contrastive_a = nce_loss(projections[0], keys_b, first, temperature)
    contrastive_b = nce_loss(projections[1], keys_a, first, temperature)
    return PretrainingLoss(contrastive_a + contrastive_b, nce_loss(noisier, keys_q, first, temperature))
