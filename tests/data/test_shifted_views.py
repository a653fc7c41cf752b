"""Shifted views stay within their padding, repeat the border, and depend on nothing but their coordinates."""

import numpy as np
import torch

from rrcm_dist.config.ibp import IbpViews
from rrcm_dist.data.shifted_views import ShiftedView


class Pixels:
    """A decoded image that is as large as the view."""

    def __init__(self, pixels: torch.Tensor) -> None:
        self._pixels = pixels
        self.height, self.width = pixels.shape[1:]

    def crops(self, boxes, size, filters, flips):
        return [self._pixels.flip(-1) if flips[0] else self._pixels]


IMAGE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8))


def test_a_view_without_padding_and_flip_is_the_image() -> None:
    assert torch.equal(ShiftedView(IbpViews(), 8)(Pixels(IMAGE), 0, 1, 2), IMAGE)


def test_views_are_every_shift_and_flip_of_the_image_with_its_border_repeated() -> None:
    view = ShiftedView(IbpViews(padding=1, flip=0.5), 8)
    seen = {view(Pixels(IMAGE), 0, step, 0).numpy().tobytes() for step in range(300)}
    expected = set()
    for source in (IMAGE.numpy(), IMAGE.flip(-1).numpy()):
        padded = np.pad(source, ((0, 0), (1, 1), (1, 1)), mode="edge")
        expected |= {padded[:, top : top + 8, left : left + 8].tobytes() for top in range(3) for left in range(3)}
    assert seen == expected
    assert torch.equal(view(Pixels(IMAGE), 0, 5, 0), view(Pixels(IMAGE), 0, 5, 0))
