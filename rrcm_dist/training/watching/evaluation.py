"""Held-out images for evaluations during training: evenly spaced, shared out over ranks, with noise of their own."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor

from rrcm_dist.config.parts import DataConfig
from rrcm_dist.data.index import DatasetIndex
from rrcm_dist.data.loaders import evaluation_images
from rrcm_dist.data.parts import UNREADABLE
from rrcm_dist.distributed.collectives import first_problem, gather_over_ranks
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import InvalidInput, RRCMError, RunFailure
from rrcm_dist.evaluation.images import EVALUATION_BATCH, Outputs, evenly_spaced, noisy_images
from rrcm_dist.progress import Bar, progress_bar
from rrcm_dist.training.samples import named_index

SECONDS_WITHOUT_BAR = 3.0
"""Reading that takes longer shows a bar."""


def held_out_index(data: DataConfig, train: DatasetIndex) -> DatasetIndex | None:
    """The recipe's held-out shards, None where it names none; `InvalidInput` where their classes are not `train`'s."""
    if data.held_out is None:
        return None
    index = named_index("data.held_out", data.held_out, data)
    if index.classes != train.classes:
        raise InvalidInput(
            f"data.held_out {data.held_out} and data.train {data.train} have different classes "
            f"({len(index.classes)} and {len(train.classes)}, or other names): build both from the same classes, "
            "or set data.held_out=null"
        )
    return index


class HeldOutImages:
    """Some images of a dataset in the memory of each rank, uint8; the ranks hold equal shares, the last one padded.

    Images that cannot be decoded are left out, on every rank alike.
    """

    def __init__(
        self, index: DatasetIndex, count: int, image_size: int, seed: int, world: World, workers: int = 0
    ) -> None:
        """Read the rank's share of `count` images by `workers` processes; every rank must call it.

        Raises `RunFailure` on every rank where a shard cannot be read on one, or no image can be decoded.
        """
        self._world, self._seed = world, seed
        chosen = evenly_spaced(len(index), count)
        per_rank = -(-len(chosen) // world.size)
        padded = np.resize(chosen, per_rank * world.size)  # repeats from the start
        self._ids = padded[world.rank * per_rank : (world.rank + 1) * per_rank]
        self._images = torch.empty(per_rank, 3, image_size, image_size, dtype=torch.uint8)
        readable = torch.ones(per_rank, dtype=torch.bool)
        problem = ""
        try:
            self._read(index, readable, workers)
        except RRCMError as error:
            problem = str(error)
        if problem := first_problem(problem):
            raise RunFailure(problem)
        everyones = gather_over_ranks(readable.to(world.device))[: len(chosen)].cpu()
        if not everyones.any():
            raise RunFailure(f"none of {len(chosen)} images of {index.place} can be decoded: verify the dataset")
        self._kept = everyones.nonzero().flatten().to(world.device)
        """Positions, among the images of all ranks, of those that can be decoded."""
        self.labels = torch.from_numpy(index.label[chosen].astype(np.int64)).to(world.device)[self._kept]
        """(images,) int64 labels of all ranks' images, on the device."""

    def outputs(self, compute: Outputs, sigma: float) -> Tensor:
        """`compute` of every image under noise σ, (images, …), the same on every rank, in the order of `labels`.

        The noise of an image depends on seed, image and σ alone. Every rank must call it.
        """
        own = [compute(noisy) for noisy in self._noisy(sigma)]
        return gather_over_ranks(torch.cat(own))[self._kept]

    def _read(self, index: DatasetIndex, readable: Tensor, workers: int) -> None:
        """Fill the rank's images; one that cannot be decoded is black and not `readable`."""
        size, title = self._images.shape[-1], f"reading {index.place.rstrip('/').rpartition('/')[2]}"
        start, done, total = time.monotonic(), 0, len(self._ids)
        with ExitStack() as stack:
            bar: Bar | None = None
            for batch in evaluation_images(index, size, self._ids, workers, allow_unreadable=True):
                rows = slice(done, done + len(batch.rows))
                self._images[rows], readable[rows] = batch.images, batch.sample_ids != UNREADABLE
                done = rows.stop
                slow = time.monotonic() - start > SECONDS_WITHOUT_BAR
                if bar is not None:
                    bar.advance(len(batch.rows))
                elif self._world.is_main and slow and done < total:
                    bar = stack.enter_context(progress_bar(title, total, done, "images"))

    def _noisy(self, sigma: float) -> Iterator[Tensor]:
        device = self._world.device
        for start in range(0, len(self._ids), EVALUATION_BATCH):
            rows = slice(start, start + EVALUATION_BATCH)
            yield noisy_images(self._images[rows], self._ids[rows].tolist(), sigma, self._seed, device)
