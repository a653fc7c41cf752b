"""Held-out images for evaluations during training: evenly spaced, shared out over ranks, with noise of their own."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from rrcm_dist.data.index import DatasetIndex
from rrcm_dist.data.loaders import evaluation_images
from rrcm_dist.distributed.collectives import gather_over_ranks
from rrcm_dist.distributed.world import World
from rrcm_dist.noise import noise_level
from rrcm_dist.random_streams import NormalStream, Purpose

EVALUATION_BATCH = 256

Outputs = Callable[[Tensor], Tensor]
"""Noisy [-1, 1] images (n, 3, H, W) → (n, …) of any dtype."""


class HeldOutImages:
    """Some images of a dataset in the memory of each rank, uint8; the ranks hold equal shares, the last one padded."""

    def __init__(self, index: DatasetIndex, count: int, image_size: int, seed: int, world: World) -> None:
        self._world, self._seed = world, seed
        chosen = np.unique(np.linspace(0, len(index) - 1, min(count, len(index))).round().astype(np.int64))
        self._count = len(chosen)
        per_rank = -(-self._count // world.size)
        padded = np.resize(chosen, per_rank * world.size)  # repeats from the start
        self._ids = padded[world.rank * per_rank : (world.rank + 1) * per_rank]
        batches = list(evaluation_images(index, image_size, self._ids))
        self._images = torch.cat([batch.images for batch in batches])
        own_labels = torch.cat([batch.labels for batch in batches]).to(world.device)
        self.labels = gather_over_ranks(own_labels)[: self._count]
        """(images,) int64 labels of all ranks' images, on the device."""

    def outputs(self, compute: Outputs, sigma: float) -> Tensor:
        """`compute` of every image under noise σ, (images, …), the same on every rank, in the order of `labels`.

        The noise of an image depends on seed, image and σ alone. Every rank must call it.
        """
        own = [compute(noisy) for noisy in self._noisy(sigma)]
        return gather_over_ranks(torch.cat(own))[: self._count]

    def _noisy(self, sigma: float) -> Iterator[Tensor]:
        device = self._world.device
        for start in range(0, len(self._ids), EVALUATION_BATCH):
            rows = slice(start, start + EVALUATION_BATCH)
            images = self._images[rows].to(device).float().div_(127.5).sub_(1)
            if sigma > 0:
                noise = [self._noise(int(sample), sigma, images.shape[1:]) for sample in self._ids[rows]]
                images.add_(torch.stack(noise), alpha=noise_level(sigma))
            yield images

    def _noise(self, sample: int, sigma: float, shape: torch.Size) -> Tensor:
        stream = NormalStream(self._world.device, Purpose.EVALUATION_NOISE, self._seed, sample, float(sigma))
        return stream.draw(*shape)
