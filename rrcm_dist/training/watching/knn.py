"""Weighted k-nearest-neighbour accuracy of the representation during training, clean and under noise."""

import torch
from torch import nn

from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.data.index import DatasetIndex
from rrcm_dist.distributed.world import World
from rrcm_dist.evaluation.images import Outputs, conditioned
from rrcm_dist.evaluation.neighbours import knn_predictions
from rrcm_dist.training.watching.evaluation import HeldOutImages, held_out_index
from rrcm_dist.training.watching.probe import LinearProbe


class KnnEvaluation:
    """Bank: clean training images. Queries: held-out images, clean and at each σ. Images are read on first use."""

    def __init__(self, recipe: PretrainConfig, train: DatasetIndex, world: World) -> None:
        """Raises `InvalidInput` where held-out and training data have different classes."""
        self._recipe, self._train, self._world = recipe, train, world
        self._held_out = held_out_index(recipe.data, train)
        self._images: tuple[HeldOutImages, HeldOutImages] | None = None

    @torch.no_grad()
    def run(self, network: nn.Module, probe: LinearProbe | None = None) -> dict[str, float]:
        """Accuracy by 'knn_sigma_…' and, of a probe on the same representations, by 'probe_sigma_…'.

        Empty where the recipe names no held-out data. Every rank must call it.
        """
        if self._held_out is None:
            return {}
        bank, queries = self._load(self._held_out)
        config = self._recipe.knn
        bank_representations = bank.outputs(self._represent(network, 0.0), 0.0)
        results = {}
        for sigma in config.sigmas:
            representations = queries.outputs(self._represent(network, sigma), sigma)
            predicted = knn_predictions(
                representations, bank_representations, bank.labels,
                len(self._train.classes), config.neighbours, config.temperature,
            )  # fmt: skip
            results[f"knn_sigma_{sigma:g}"] = (predicted == queries.labels).float().mean().item()
            if probe is not None:
                results[f"probe_sigma_{sigma:g}"] = probe.accuracy(representations, queries.labels)
        return results

    def _represent(self, network: nn.Module, sigma: float) -> Outputs:
        encoder, recipe = network.encoder, self._recipe
        return conditioned(encoder, recipe.noise, sigma, recipe.training.precision)  # type: ignore[arg-type]

    def _load(self, held_out: DatasetIndex) -> tuple[HeldOutImages, HeldOutImages]:
        if self._images is None:
            recipe, size, workers = self._recipe, self._recipe.encoder.image_size, self._recipe.data.workers
            self._images = (
                HeldOutImages(self._train, recipe.knn.bank, size, recipe.seed, self._world, workers),
                HeldOutImages(held_out, recipe.knn.queries, size, recipe.seed, self._world, workers),
            )
        return self._images
