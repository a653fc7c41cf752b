"""What published systems add to rRCM's pre-training: a section each, null where the run does without it."""

from rrcm_dist.config.hard_negatives import BatchBalanceConfig, HardNegativesConfig
from rrcm_dist.config.parts import EncoderConfig, Part
from rrcm_dist.config.representation_warmup import RepresentationWarmupConfig


class AdditionsConfig(Part):
    """Additions to pre-training, each of a paper of its own; rRCM has none of them."""

    hard_negatives: HardNegativesConfig | None = None
    """Hard negatives of every sample in the contrastive terms (Conan-embedding, Li et al. 2024)."""
    batch_balance: BatchBalanceConfig | None = None
    """CoSENT over graded pairs of all ranks beside them (Conan-embedding's cross-GPU batch balance loss)."""
    representation_warmup: RepresentationWarmupConfig | None = None
    """A first stage in which the early blocks learn from a frozen teacher (ERW, Liu et al. 2025)."""

    def check(self, encoder: EncoderConfig) -> None:
        """Raise `ValueError` where a section does not suit the encoder."""
        if self.representation_warmup is not None:
            self.representation_warmup.check(encoder)
