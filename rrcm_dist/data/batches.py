"""What the loaders deliver, and how batches are put together from the parts that workers make."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info


@dataclass(frozen=True)
class PretrainingBatch:
    """A rank's rows of a global batch: the three views, cropped and flipped, their photometric part still to come."""

    plain: Tensor
    """uint8 (N, 3, H, W): resized, centre-cropped, flipped."""
    view_a: Tensor
    """uint8 (N, 3, H, W): random resized crop, flipped."""
    view_b: Tensor
    """uint8 (N, 3, H, W): random resized crop, flipped."""
    photometric_a: Tensor
    """float32 (N, P): what `apply_photometric` is to do to `view_a`."""
    photometric_b: Tensor
    """float32 (N, P): what `apply_photometric` is to do to `view_b`."""
    crops: Tensor
    """int32 (N, 2, 4): where `view_a` and `view_b` lie in the image: top, left, height, width in its pixels."""
    labels: Tensor
    """int64 (N,)."""
    sample_ids: Tensor
    """int64 (N,): rows of the dataset's index."""
    keys: list[str]
    """Names of the samples."""
    rows: Tensor
    """int64 (N,): positions within the global batch."""
    failures: int
    """Samples of this batch that could not be decoded and were replaced."""


@dataclass(frozen=True)
class LabelledBatch:
    """A rank's rows of a global batch, or a part of a dataset under evaluation: one view of each image."""

    images: Tensor
    """uint8 (N, 3, H, W)."""
    labels: Tensor
    """int64 (N,)."""
    sample_ids: Tensor
    """int64 (N,): rows of the dataset's index."""
    keys: list[str]
    """Names of the samples."""
    rows: Tensor
    """int64 (N,): positions within the global batch, or among the samples asked for."""
    failures: int
    """Samples of this batch that could not be decoded and were replaced."""


Batch = TypeVar("Batch", PretrainingBatch, LabelledBatch)

UPLOADED = ("plain", "view_a", "view_b", "images", "labels", "sample_ids", "crops")
"""Fields that training copies to the device: the ones that `pin_memory` concerns."""


class Assembly(Generic[Batch]):
    """A batch put together part by part; a part's shared memory and file descriptors can go once it is added."""

    def __init__(self, rows: int, pin_memory: bool = False) -> None:
        """`rows` is the number of samples of the whole; pinned memory is for training on CUDA, and only for that."""
        self._rows, self._filled = rows, 0
        self._fields: dict[str, Any] = {}
        self._pin = pin_memory

    def add(self, part: Batch) -> Batch | None:
        """Take the next samples; returns the batch once it is complete."""
        count = len(part.keys)
        if count == self._rows and not self._pin:
            return part
        for field in dataclasses.fields(part):
            self._extend(field.name, getattr(part, field.name), count)
        self._filled += count
        return type(part)(**self._fields) if self._filled == self._rows else None

    def _extend(self, name: str, value: Any, count: int) -> None:
        if not isinstance(value, Tensor):
            self._fields[name] = self._fields[name] + value if name in self._fields else value
            return
        if name not in self._fields:
            shape, pinned = (self._rows, *value.shape[1:]), self._pin and name in UPLOADED
            self._fields[name] = (
                torch.empty(shape, dtype=value.dtype, pin_memory=True) if pinned else _room(value, shape)
            )
        self._fields[name][self._filled : self._filled + count] = value


def stacked(samples: Sequence[Tensor]) -> Tensor:
    """Samples as a part of a batch: in a worker within the shared memory that it travels in."""
    if get_worker_info() is not None:
        return default_collate(list(samples))
    return torch.stack(list(samples), out=_room(samples[0], (len(samples), *samples[0].shape)))


def _room(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uninitialised memory. NumPy's comes in huge pages: filled and freed several times as fast as torch's."""
    return torch.from_numpy(np.empty(shape, dtype=like.numpy().dtype))


FEWEST_READ = 1000
"""Samples read before a share of failures means anything, unless every one of them failed."""


class DecodeFailures:
    """Counts a rank's samples that could not be decoded, and says when they are too many."""

    def __init__(self, largest_share: float) -> None:
        self.largest_share = largest_share
        self.read = 0
        self.failed = 0
        self._problem = ""

    def update(self, batch: PretrainingBatch | LabelledBatch) -> None:
        """Count a batch."""
        self.read += len(batch.sample_ids)
        self.failed += batch.failures
        self._problem = self._problem or self._found()

    def problem(self) -> str:
        """Why the run should stop: too many of the samples read have failed, once and for all. Empty where all is well.

        Told and not raised, because a run stops on all ranks together.
        """
        return self._problem

    def _found(self) -> str:
        too_many = self.failed > self.largest_share * self.read
        if not too_many or (self.read < FEWEST_READ and self.failed < self.read):
            return ""
        return (
            f"{self.failed} of {self.read} samples read could not be decoded, more than data.max_decode_failures "
            f"({self.largest_share:g}) allows: `python -m shards verify` lists damaged samples (their keys are in "
            "the log); build those shards again, or raise the limit"
        )
