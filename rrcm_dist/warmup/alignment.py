"""Alignment of tokens with a teacher's: negative cosine per token, through a small MLP (ERW, Liu et al. 2025)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrcm_dist.models.encoder import EXTRA_TOKENS
from rrcm_dist.random_streams import Purpose, stream_key


class AlignmentHead(nn.Module):
    """Three linear layers with SiLU between them, from our tokens to the teacher's, and their disagreement."""

    def __init__(self, width: int, hidden: int, teacher_width: int, seed: int, view: int = -1) -> None:
        """`view`: which of the views that it is given is aligned; the last one unless said otherwise."""
        super().__init__()
        self._view = view
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream_key(Purpose.INITIALIZATION, seed, "alignment") & 0xFFFF_FFFF)
            self.layers = nn.Sequential(
                nn.Linear(width, hidden),
                nn.SiLU(),
                nn.Linear(hidden, hidden),
                nn.SiLU(),
                nn.Linear(hidden, teacher_width),
            )

    def forward(self, tokens: Tensor, of_teacher: Tensor) -> Tensor:
        """Tokens (views, m, T, D) of ours, class and time first, and (m, patches, teacher's width) → (m,) float32
        losses in [-1, 1], each the mean over its image's patches."""
        patches = self.layers(tokens[self._view, :, EXTRA_TOKENS:])
        return alignment_loss(patches, of_teacher)


def alignment_loss(patches: Tensor, of_teacher: Tensor) -> Tensor:
    """-mean over tokens of the cosine of (m, patches, width) with the same; (m,) float32, a loss for every image."""
    return -F.cosine_similarity(patches.float(), of_teacher.float(), dim=-1).mean(dim=1)


def term_weight(weight: float, halving_steps: int, step: int) -> float:
    """λ_k = c0 · 2^(-k / halving_steps) (Liu et al. 2025)."""
    return weight * 2.0 ** (-step / halving_steps)
