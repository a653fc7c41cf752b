"""Reading the images of a dataset once, batch by batch, without those that cannot be decoded."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rrcm_dist.data.batches import LabelledBatch
from rrcm_dist.data.index import DatasetIndex
from rrcm_dist.data.loaders import evaluation_images
from rrcm_dist.data.parts import UNREADABLE
from rrcm_dist.errors import RunFailure
from rrcm_dist.progress import progress_bar


class ReadImages(NamedTuple):
    """Images of a dataset, all of which could be decoded."""

    pixels: Tensor
    """uint8 (n, 3, H, W)."""
    labels: Tensor
    """int64 (n,)."""
    sample_ids: Tensor
    """int64 (n,)."""
    keys: list[str]


def read_once(
    index: DatasetIndex, sample_ids: np.ndarray, image_size: int, batch: int, workers: int, title: str
) -> Iterator[ReadImages]:
    """The named images in the order given, resized and centre-cropped, `batch` at a time, under a progress bar.

    Images that cannot be decoded are left out. Raises `RunFailure` where a shard cannot be read, or no image decoded.
    """
    waiting: ReadImages | None = None
    found = 0
    with progress_bar(title, len(sample_ids), unit="images") as bar:
        for part in evaluation_images(index, image_size, sample_ids, workers, allow_unreadable=True):
            readable = _readable(part)
            found += len(readable.keys)
            waiting = readable if waiting is None else _joined(waiting, readable)
            while len(waiting.keys) >= batch:
                yield _rows(waiting, slice(0, batch))
                waiting = _rows(waiting, slice(batch, None))
            bar.advance(len(part.rows))
        if waiting is not None and waiting.keys:
            yield waiting
    if not found:
        raise RunFailure(f"none of {len(sample_ids)} images of {index.place} can be decoded: verify the dataset")


def _readable(part: LabelledBatch) -> ReadImages:
    kept = part.sample_ids != UNREADABLE
    keys = [key for key, keep in zip(part.keys, kept.tolist(), strict=True) if keep]
    return ReadImages(part.images[kept], part.labels[kept], part.sample_ids[kept], keys)


def _joined(first: ReadImages, second: ReadImages) -> ReadImages:
    return ReadImages(
        torch.cat([first.pixels, second.pixels]),
        torch.cat([first.labels, second.labels]),
        torch.cat([first.sample_ids, second.sample_ids]),
        first.keys + second.keys,
    )


def _rows(images: ReadImages, rows: slice) -> ReadImages:
    return ReadImages(images.pixels[rows], images.labels[rows], images.sample_ids[rows], images.keys[rows])
