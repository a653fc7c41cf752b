"""Which samples make up which global batch: a pure function of (recipe, step), the same for any ranks and workers.

An epoch's shards are permuted, seeded by (seed, epoch), and their samples concatenated; as many of them as fill whole
global batches are dealt, as equal contiguous pieces, to C canonical streams; a stream shuffles its piece in windows. A
global batch takes batch/C samples from every stream. Ranks divide the streams among themselves, so a rank reads few
shards at a time, none is ever without samples, and all have equally many.
"""

from collections.abc import Sequence

import numpy as np

from rrcm_dist.errors import InvalidInput
from rrcm_dist.random_streams import Purpose, numpy_generator

CACHED_EPOCHS = 2
"""The current and the next epoch: what is loaded ahead may lie beyond the end of an epoch."""


class SampleOrder:
    """The order of training samples; samples are named by their ids (rows of the dataset's index)."""

    def __init__(self, samples_per_shard: Sequence[int], batch: int, streams: int, seed: int, window: int) -> None:
        """Take the shards' sample counts, the global batch, C, the seed and the samples shuffled among each other.

        Raises `InvalidInput` where there are fewer samples than a global batch, or `streams` does not divide `batch`.
        """
        self.samples, self.batch, self.streams = int(sum(samples_per_shard)), batch, streams
        _check(self.samples, batch, streams, window)
        self.steps_per_epoch = self.samples // batch
        self._samples_per_shard = np.asarray(samples_per_shard, dtype=np.int64)
        self._seed, self._window = seed, window
        self._dealt: dict[int, np.ndarray] = {}

    def global_batch(self, step: int) -> np.ndarray:
        """Sample ids of global batch `step` (counted from 0 over all epochs), int64 (batch,).

        Rows [c·b, (c+1)·b) belong to stream c, with b = batch/streams.
        """
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        b = self.batch // self.streams
        return self._epoch(epoch)[:, step_of_epoch * b : (step_of_epoch + 1) * b].reshape(self.batch)

    def rank_rows(self, rank: int, world_size: int) -> range:
        """Rows of every global batch that `rank` of `world_size` handles: those of its share of the streams.

        Raises `InvalidInput` where `world_size` does not divide the streams, or `rank` is not below it.
        """
        if world_size < 1 or self.streams % world_size:
            possible = ", ".join(str(ranks) for ranks in divisors(self.streams))
            raise InvalidInput(
                f"{world_size} ranks cannot share {self.streams} streams equally: start {possible} ranks, "
                f"or make data.streams a multiple of {world_size}"
            )
        if not 0 <= rank < world_size:
            raise InvalidInput(f"rank {rank} is out of range: ranks go from 0 to {world_size - 1}")
        rows = self.batch // world_size
        return range(rank * rows, (rank + 1) * rows)

    def rank_batch(self, step: int, rank: int, world_size: int) -> np.ndarray:
        """The contiguous part of `global_batch(step)` that `rank` handles, int64 (batch/world_size,)."""
        rows = self.rank_rows(rank, world_size)
        return self.global_batch(step)[rows.start : rows.stop]

    def _epoch(self, epoch: int) -> np.ndarray:
        if epoch not in self._dealt:
            if len(self._dealt) >= CACHED_EPOCHS:
                del self._dealt[min(self._dealt)]
            self._dealt[epoch] = self._deal(epoch)
        return self._dealt[epoch]

    def _deal(self, epoch: int) -> np.ndarray:
        """Sample ids of an epoch, int64 (C, L): row c is the order in which stream c is read."""
        counts = self._samples_per_shard
        firsts = np.cumsum(counts) - counts
        shards = numpy_generator(Purpose.SAMPLE_ORDER, self._seed, epoch).permutation(len(counts))
        ids = np.concatenate([np.arange(firsts[s], firsts[s] + counts[s]) for s in shards])
        pieces_CL = ids[: self.steps_per_epoch * self.batch].reshape(self.streams, -1)
        for stream, piece_L in enumerate(pieces_CL):
            generator = numpy_generator(Purpose.SAMPLE_ORDER, self._seed, epoch, stream)
            for first in range(0, len(piece_L), self._window):
                generator.shuffle(piece_L[first : first + self._window])
        pieces_CL.flags.writeable = False
        return pieces_CL


def divisors(number: int) -> list[int]:
    """The positive divisors of `number`, in ascending order."""
    return [d for d in range(1, number + 1) if number % d == 0]


def _check(samples: int, batch: int, streams: int, window: int) -> None:
    if batch < 1 or streams < 1 or window < 1:
        raise InvalidInput(f"batch ({batch}), streams ({streams}) and shuffle window ({window}) must be at least 1")
    if batch % streams:
        raise InvalidInput(f"data.streams {streams} does not divide training.batch {batch}: change one of them")
    if samples == 0:
        raise InvalidInput("the dataset holds no samples: build its shards again (python -m shards build)")
    if samples < batch:
        raise InvalidInput(
            f"the dataset holds {samples} samples, fewer than one global batch of {batch}: "
            f"lower training.batch to a multiple of data.streams ({streams}) that is at most {samples}"
        )
