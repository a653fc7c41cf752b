"""The rRCM pre-training loss (Lei et al. 2025), and the one place where it gathers keys over ranks."""

from dataclasses import dataclass

from torch import Tensor

from rrcm_dist.distributed.collectives import Gathering, own_rank
from rrcm_dist.objectives.contrastive import Negatives, nce_loss


@dataclass(frozen=True)
class PretrainingLoss:
    """Per-image parts, (n,) float32 each, for this rank's rows of the global batch."""

    contrastive: Tensor
    consistency: Tensor

    @property
    def mean(self) -> Tensor:
        """The rank's loss: mean over its rows of both parts."""
        return (self.contrastive + self.consistency).mean()


@dataclass(frozen=True)
class PretrainingKeys:
    """Keys of the global batch, in the order of ranks; no gradient flows into them."""

    view_a: Tensor
    """(batch, output), target projections of view A."""
    view_b: Tensor
    """(batch, output), target projections of view B."""
    less_noisy: Tensor
    """(batch, D), online representations of view Q."""


class KeysOnTheirWay:
    """The keys of every rank, gathered while the online network makes its queries.

    The projections are sent as soon as they are there, before the less noisy representations are computed.
    """

    def __init__(self, target_projections: Tensor) -> None:
        """`target_projections`: (2, n, output), of views A and B; n is the same on every rank."""
        self._views = [Gathering(view) for view in target_projections]

    def add_less_noisy(self, representations: Tensor) -> None:
        """(n, D) online representations of view Q (level t_(i+1))."""
        self._less_noisy = Gathering(representations)

    def wait(self) -> PretrainingKeys:
        """All of them."""
        view_a, view_b = (view.wait() for view in self._views)
        return PretrainingKeys(view_a, view_b, self._less_noisy.wait())


def pretraining_loss(
    projections: Tensor,
    noisier: Tensor,
    keys: PretrainingKeys,
    temperature: float,
    negatives: Negatives | None = None,
) -> PretrainingLoss:
    """Contrastive loss of two views against the target network's, and consistency along the noise trajectory.

    contrastive = NCE(proj(online(A)), proj(target(B))) + NCE(proj(online(B)), proj(target(A)))
    consistency = NCE(rep(online(P)), stopgrad rep(online(Q)))

    Args:
        projections: (2, n, output), online projections of A and B; with gradient.
        noisier: (n, D), online representations of P (level t_i); with gradient.
        keys: of all ranks; this rank's rows among them are its own n.
        temperature: τ of both parts.
        negatives: further negatives (K, output) of both contrastive terms; rRCM has none.
    """
    first = own_rank() * len(noisier)
    contrastive_a = nce_loss(projections[0], keys.view_b, first, temperature, negatives)
    contrastive_b = nce_loss(projections[1], keys.view_a, first, temperature, negatives)
    return PretrainingLoss(contrastive_a + contrastive_b, nce_loss(noisier, keys.less_noisy, first, temperature))
