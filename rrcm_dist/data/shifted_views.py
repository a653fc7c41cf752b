"""Labelled images shifted by a few pixels and flipped: what certified training sees of small images."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from rrcm_dist.config.ibp import IbpConfig, IbpViews
from rrcm_dist.data.batches import LabelledBatch
from rrcm_dist.data.decoding import EncodedImage
from rrcm_dist.data.index import DatasetIndex
from rrcm_dist.data.loaders import labelled_batch
from rrcm_dist.data.order import SampleOrder
from rrcm_dist.data.parts import PartMaker, StepRequests, batches
from rrcm_dist.data.views import centre_square
from rrcm_dist.random_streams import Coordinate, Purpose, numpy_generator


class ShiftedView:
    """Makes a sample's view; a pure function of the recipe's views and the coordinates of the sample's position."""

    def __init__(self, views: IbpViews, size: int) -> None:
        """`size` is the height and width of the result."""
        self._views, self._size = views, size

    def __call__(self, image: EncodedImage, *coordinates: Coordinate) -> Tensor:
        """The view of `image` as uint8 (3, size, size): padded by its border, cropped at a random place, flipped."""
        generator = numpy_generator(Purpose.VIEWS, *coordinates)
        padding = self._views.padding
        flip = generator.random() < self._views.flip
        top, left = generator.integers(2 * padding + 1, size=2).tolist()
        (view,) = image.crops([centre_square(image.height, image.width)], self._size, ["bicubic"], [flip])
        if not padding:
            return view
        padded = F.pad(view[None].float(), (padding,) * 4, mode="replicate")[0].to(torch.uint8)
        return padded[:, top : top + self._size, left : left + self._size].contiguous()


def shifted_loader(
    index: DatasetIndex,
    order: SampleOrder,
    config: IbpConfig,
    rank: int,
    world_size: int,
    start_step: int,
    steps: int,
    pin_memory: bool = False,
) -> Iterator[LabelledBatch]:
    """The rank's rows of the global batches start_step … start_step + steps - 1; else as `pretraining_loader`."""
    maker = PartMaker(index, ShiftedView(config.views, config.network.image_size), labelled_batch, config.seed)
    requests = StepRequests(order, rank, world_size, start_step, steps)
    return batches(maker, requests, config.data.workers, config.data.prefetch * requests.parts_per_batch, pin_memory)
