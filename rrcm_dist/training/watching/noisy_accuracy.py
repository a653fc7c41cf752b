"""Accuracy of the base classifier on held-out images, clean and under noise: one draw per image and σ."""

import torch
from torch import nn

from rrcm_dist.config.schema import FinetuneConfig
from rrcm_dist.data.index import DatasetIndex
from rrcm_dist.distributed.world import World
from rrcm_dist.evaluation.images import conditioned
from rrcm_dist.training.watching.evaluation import HeldOutImages, held_out_index


class NoisyAccuracy:
    """Held-out images are read once, on first use."""

    def __init__(self, recipe: FinetuneConfig, train: DatasetIndex, world: World) -> None:
        """Raises `InvalidInput` where held-out and training data have different classes."""
        self._recipe, self._world = recipe, world
        self._index = held_out_index(recipe.data, train)
        self._images: HeldOutImages | None = None

    @torch.no_grad()
    def run(self, network: nn.Module) -> dict[str, float]:
        """Accuracy by 'accuracy_sigma_…'; empty where the recipe names no held-out data. Every rank must call it."""
        if self._index is None:
            return {}
        if self._images is None:
            recipe = self._recipe
            count, size = recipe.evaluation.images, recipe.encoder.image_size
            self._images = HeldOutImages(self._index, count, size, recipe.seed, self._world, recipe.data.workers)
        return {
            f"accuracy_sigma_{sigma:g}": self._accuracy(network, self._images, sigma)
            for sigma in self._recipe.evaluation.sigmas
        }

    def _accuracy(self, network: nn.Module, images: HeldOutImages, sigma: float) -> float:
        logits = conditioned(network, self._recipe.noise, sigma, self._recipe.training.precision)
        return (images.outputs(lambda noisy: logits(noisy).argmax(dim=1), sigma) == images.labels).float().mean().item()
