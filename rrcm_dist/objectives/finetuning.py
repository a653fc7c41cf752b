"""The fine-tuning loss: cross-entropy under noise with consistency regularisation (Jeong & Shin, NeurIPS 2020)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_PROBABILITY = 1e-20
"""Probabilities are raised to this before a logarithm is taken."""


@dataclass(frozen=True)
class FinetuningLoss:
    """Scalar parts, float32; means over the rank's images."""

    cross_entropy: Tensor
    divergence: Tensor
    """mean_j KL(p̄ ‖ p_j), unweighted."""
    entropy: Tensor
    """H(p̄), unweighted."""
    total: Tensor


def finetuning_loss(logits: Tensor, targets: Tensor, consistency: float, entropy: float) -> FinetuningLoss:
    """CE + λ · mean_j KL(p̄ ‖ p_j) + η · H(p̄), p_j the softmax of draw j and p̄ the mean over draws.

    Args:
        logits: (draws, n, classes) float, draws ≥ 2: logits of the same images under independent noise.
        targets: (n, classes) float, class probabilities (one-hot, smoothed or mixed).
        consistency: λ ≥ 0.
        entropy: η ≥ 0.
    """
    log_p = F.log_softmax(logits.float(), dim=-1)
    mean_p = log_p.exp().mean(dim=0)
    cross_entropy = -(targets * log_p).sum(dim=-1).mean()
    divergence = consistency_divergence(log_p, mean_p).mean()
    mean_entropy = -(mean_p * mean_p.clamp(min=SMALLEST_PROBABILITY).log()).sum(dim=-1).mean()
    total = cross_entropy + consistency * divergence + entropy * mean_entropy
    return FinetuningLoss(cross_entropy, divergence, mean_entropy, total)


def consistency_divergence(log_p: Tensor, mean_p: Tensor) -> Tensor:
    """mean_j KL(p̄ ‖ p_j) per image: (draws, n, classes), (n, classes) → (n,)."""
    divergences = [F.kl_div(draw, mean_p, reduction="none").sum(dim=-1) for draw in log_p]
    return torch.stack(divergences).mean(dim=0)
