"""The network of the warm-up: the first blocks of a run's encoder and the head that aligns them."""

import torch
from torch import Tensor, nn

from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.models.encoder import Encoder
from rrcm_dist.models.rrcm import autocast
from rrcm_dist.warmup.alignment import AlignmentHead

EARLY_BLOCKS = "early-blocks"
"""File stem of its weights in a checkpoint, which have the encoder's names."""


class EarlyBlocks(nn.Module):
    """The run's encoder as it is initialised, up to `blocks`, and an alignment head after them."""

    def __init__(self, recipe: PretrainConfig, blocks: int, hidden: int, teacher_width: int) -> None:
        super().__init__()
        encoder = Encoder(recipe.encoder, recipe.noise.sigma_data, recipe.seed)
        encoder.blocks = encoder.blocks[:blocks]
        del encoder.norm  # comes after the last block
        self.encoder = encoder
        self.head = AlignmentHead(recipe.encoder.width, hidden, teacher_width, recipe.seed)
        self._t_min, self._precision = recipe.noise.t_min, recipe.training.precision

    def forward(self, clean: Tensor, of_teacher: Tensor) -> Tensor:
        """Clean images (m, 3, H, W) in [-1, 1], conditioned on t_min, and the teacher's tokens → (m,) losses."""
        t = torch.full((len(clean),), self._t_min, device=clean.device)
        with autocast(self._precision, clean.device):
            tokens = self.encoder.tokens_after(clean, t, len(self.encoder.blocks))
            losses: Tensor = self.head(tokens[None], of_teacher)
        return losses
