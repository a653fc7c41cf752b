"""Batches of images from shards: which samples by the order, which views by (seed, step, row), whoever makes them.

Workers make parts of batches, and a part is a pure function of its request, so their number changes nothing. A sample
that cannot be decoded is replaced by the one of the next id (after the last comes the first), with views drawn anew.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.data.batches import LabelledBatch, PretrainingBatch, stacked
from rrcm_dist.data.decoding import EncodedImage
from rrcm_dist.data.finetuning_views import FinetuningView
from rrcm_dist.data.index import DatasetIndex
from rrcm_dist.data.order import SampleOrder
from rrcm_dist.data.parts import Labels, PartMaker, PartRequest, StepRequests, batches
from rrcm_dist.data.pretraining_views import PretrainingSample, PretrainingView
from rrcm_dist.data.views import centre_square
from rrcm_dist.random_streams import Coordinate

EVALUATION_PART = 64
"""Images in a part of a dataset under evaluation."""


def pretraining_loader(
    index: DatasetIndex,
    order: SampleOrder,
    config: PretrainConfig,
    rank: int,
    world_size: int,
    start_step: int,
    steps: int,
    pin_memory: bool = False,
) -> Iterator[PretrainingBatch]:
    """The rank's rows of the global batches start_step … start_step + steps - 1, one batch a step.

    `pin_memory` is for training on CUDA: the copy to the device then need not be waited for.
    Raises `InvalidInput` at once where the ranks cannot share the streams; while iterating, `RunFailure` where a shard
    is missing or short, or where many samples in a row cannot be decoded.
    """
    maker = PartMaker(index, PretrainingView(config.views, config.encoder.image_size), _pretraining_batch, config.seed)
    requests = StepRequests(order, rank, world_size, start_step, steps)
    return batches(maker, requests, config.data.workers, config.data.prefetch * requests.parts_per_batch, pin_memory)


def finetuning_loader(
    index: DatasetIndex,
    order: SampleOrder,
    config: FinetuneConfig,
    rank: int,
    world_size: int,
    start_step: int,
    steps: int,
    pin_memory: bool = False,
) -> Iterator[LabelledBatch]:
    """The rank's rows of the global batches start_step … start_step + steps - 1; else as `pretraining_loader`."""
    maker = PartMaker(index, FinetuningView(config.views, config.encoder.image_size), labelled_batch, config.seed)
    requests = StepRequests(order, rank, world_size, start_step, steps)
    return batches(maker, requests, config.data.workers, config.data.prefetch * requests.parts_per_batch, pin_memory)


def evaluation_images(
    index: DatasetIndex,
    image_size: int,
    sample_ids: Sequence[int] | np.ndarray,
    workers: int = 0,
    allow_unreadable: bool = False,
) -> Iterator[LabelledBatch]:
    """The named samples in the order given, short side resized to `image_size` and centre-cropped, part by part.

    `rows` are positions in `sample_ids`. None stands in for another: one that cannot be decoded is a `RunFailure`, or,
    where that is allowed, a row of black pixels whose sample id is `UNREADABLE`. Raises `RunFailure` where a shard
    cannot be read.
    """
    ids = np.asarray(sample_ids, dtype=np.int64)
    requests = [
        PartRequest(0, first, ids[first : first + EVALUATION_PART], min(EVALUATION_PART, len(ids) - first))
        for first in range(0, len(ids), EVALUATION_PART)
    ]
    workers = min(workers, len(requests))
    blank = torch.zeros(3, image_size, image_size, dtype=torch.uint8) if allow_unreadable else None
    maker = PartMaker(index, CentreView(image_size), labelled_batch, seed=0, replacements=0, blank=blank)
    return batches(maker, requests, workers, parts_ready=2 * workers)


class CentreView:
    """The centre of an image, of one size, bicubic."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, image: EncodedImage, *_: Coordinate) -> torch.Tensor:
        """uint8 (3, size, size)."""
        return image.crops([centre_square(image.height, image.width)], self._size, ["bicubic"], [False])[0]


def _pretraining_batch(samples: Sequence[PretrainingSample], labels: Labels) -> PretrainingBatch:
    return PretrainingBatch(
        plain=stacked([sample.plain for sample in samples]),
        view_a=stacked([sample.view_a for sample in samples]),
        view_b=stacked([sample.view_b for sample in samples]),
        photometric_a=torch.from_numpy(np.stack([sample.photometric_a for sample in samples])),
        photometric_b=torch.from_numpy(np.stack([sample.photometric_b for sample in samples])),
        crops=torch.tensor([sample.crops for sample in samples], dtype=torch.int32),
        **labels,
    )


def labelled_batch(samples: Sequence[torch.Tensor], labels: Labels) -> LabelledBatch:
    """A part of a batch of one view each."""
    return LabelledBatch(images=stacked(samples), **labels)
