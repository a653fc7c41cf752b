"""A fine-tuned checkpoint as a plain torch classifier of noisy [0, 1] pixels."""

from pathlib import Path

import torch
from torch import Tensor, nn

from rrcm_dist.config.schema import FinetuneConfig
from rrcm_dist.errors import InvalidInput
from rrcm_dist.models.attention import use_attention
from rrcm_dist.models.checkpoint_files import own_metadata, weights_file
from rrcm_dist.models.rebuilding import trained_network
from rrcm_dist.noise import conditioning_level


class NoisyPixelClassifier(nn.Module):
    """[0, 1] pixels with noise σ added, (N, 3, H, W) float32 → (N, classes) float32 logits.

    Maps pixels to [-1, 1], so that the noise becomes t = 2σ, and conditions on the grid point nearest to t.
    """

    def __init__(self, network: nn.Module, level: float) -> None:
        super().__init__()
        self.network, self._level = network, level

    def forward(self, noisy: Tensor) -> Tensor:
        """Logits of noisy images."""
        t = torch.full((noisy.shape[0],), self._level, device=noisy.device)
        return self.network(noisy.float() * 2 - 1, t)


def load_classifier(
    path: str | Path,
    sigma: float,
    attention: str = "auto",
    device: torch.device | None = None,
    precision: str = "fp32",
) -> NoisyPixelClassifier:
    """The base classifier for σ in a fine-tuned run folder, checkpoint folder or weights file of ours, on `device`.

    It computes in `precision`, fp32 or bf16 by autocast, whatever it was trained in or is called within.
    Raises `InvalidInput` where there is none, where it is not fine-tuned, or was fine-tuned for another σ.
    """
    file = weights_file(path, "model")
    metadata = own_metadata(file)
    if metadata is None or not isinstance(metadata.recipe, FinetuneConfig):
        raise InvalidInput(
            f"{file} is not a fine-tuned checkpoint of ours: fine-tune first, or `rrcm import` released weights"
        )
    if metadata.recipe.sigma != sigma:
        raise InvalidInput(f"{file} was fine-tuned for sigma {metadata.recipe.sigma:g}, not {sigma:g}")
    network, recipe = trained_network(file)
    device = device or torch.device("cpu")
    network.precision = precision
    use_attention(network, attention, device)
    return NoisyPixelClassifier(network, conditioning_level(recipe.noise, sigma)).to(device).eval()
