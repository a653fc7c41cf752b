"""What the loaders deliver, and how batches are put together from the parts that workers make."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from rrcm_dist.errors import RunFailure


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

UPLOADED = ("plain", "view_a", "view_b", "images", "labels")
"""Fields that training copies to the device: in pinned memory where there is a CUDA device."""


def joined(parts: Sequence[Batch]) -> Batch:
    """The parts' samples in one batch, in order."""
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(parts[0]):
        values = [getattr(part, field.name) for part in parts]
        if field.name == "keys":
            fields[field.name] = [key for keys in values for key in keys]
        elif field.name == "failures":
            fields[field.name] = sum(values)
        else:
            fields[field.name] = _concatenated(values, pinned=field.name in UPLOADED and torch.cuda.is_available())
    return type(parts[0])(**fields)


def _concatenated(tensors: list[Tensor], pinned: bool) -> Tensor:
    if len(tensors) == 1 and not pinned:
        return tensors[0]
    rows = sum(len(tensor) for tensor in tensors)
    whole = torch.empty((rows, *tensors[0].shape[1:]), dtype=tensors[0].dtype, pin_memory=pinned)
    return torch.cat(tensors, out=whole)


FEWEST_READ = 1000
"""Samples read before a share of failures means anything, unless every one of them failed."""


class DecodeFailures:
    """Counts samples that could not be decoded, and stops the run past a share of the samples read."""

    def __init__(self, largest_share: float) -> None:
        self.largest_share = largest_share
        self.read = 0
        self.failed = 0

    def update(self, batch: PretrainingBatch | LabelledBatch) -> None:
        """Count a batch. Raises `RunFailure` when too many of the samples read so far have failed."""
        self.read += len(batch.sample_ids)
        self.failed += batch.failures
        too_many = self.failed > self.largest_share * self.read
        if too_many and (self.read >= FEWEST_READ or self.failed >= self.read):
            raise RunFailure(
                f"{self.failed} of {self.read} samples read could not be decoded, more than data.max_decode_failures "
                f"({self.largest_share:g}) allows: `python -m shards verify` lists damaged samples (their keys are in "
                "the log); build those shards again, or raise the limit"
            )
