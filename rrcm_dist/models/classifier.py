"""A fine-tuned checkpoint as a plain torch classifier of noisy [0, 1] pixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rrcm_dist.config.schema import FinetuneConfig
from rrcm_dist.errors import InvalidInput
from rrcm_dist.models.attention import use_attention
from rrcm_dist.models.checkpoint_files import own_metadata, weights_file
from rrcm_dist.models.rebuilding import network_of
from rrcm_dist.models.weights import load_into, read_weights
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


@dataclass(frozen=True)
class ClassifierWeights:
    """A fine-tuned checkpoint in memory: numbers that other processes can share, and what they are of."""

    source: str
    recipe: FinetuneConfig
    arrays: Mapping[str, NDArray[np.generic]]


def read_classifier(path: str | Path, sigma: float) -> ClassifierWeights:
    """The weights for σ in a fine-tuned run folder, checkpoint folder or weights file of ours.

    Raises `InvalidInput` where there are none, where they are not fine-tuned, or were fine-tuned for another σ.
    """
    file = weights_file(path, "model")
    metadata = own_metadata(file)
    if metadata is None or not isinstance(metadata.recipe, FinetuneConfig):
        raise InvalidInput(
            f"{file} is not a fine-tuned checkpoint of ours: fine-tune first, or `rrcm import` released weights"
        )
    if metadata.recipe.sigma != sigma:
        raise InvalidInput(f"{file} was fine-tuned for sigma {metadata.recipe.sigma:g}, not {sigma:g}")
    tensors = read_weights(file).tensors
    return ClassifierWeights(str(file), metadata.recipe, {name: value.numpy() for name, value in tensors.items()})


def classifier_of(
    weights: ClassifierWeights, sigma: float, attention: str, device: torch.device, precision: str
) -> NoisyPixelClassifier:
    """The base classifier for σ with these weights, on `device`, in evaluation mode.

    It computes in `precision`, fp32 or bf16 by autocast, whatever it was trained in or is called within.
    """
    network = network_of(weights.recipe)
    # Copied: arrays that lie in memory shared with other processes cannot be written to, and torch wants to be able to.
    load_into(network, {name: torch.from_numpy(array.copy()) for name, array in weights.arrays.items()}, weights.source)
    network.precision = precision
    use_attention(network, attention, device)
    return NoisyPixelClassifier(network, conditioning_level(weights.recipe.noise, sigma)).to(device).eval()


def load_classifier(
    path: str | Path,
    sigma: float,
    attention: str = "auto",
    device: torch.device | None = None,
    precision: str = "fp32",
) -> NoisyPixelClassifier:
    """`classifier_of` what `read_classifier` reads."""
    return classifier_of(read_classifier(path, sigma), sigma, attention, device or torch.device("cpu"), precision)
