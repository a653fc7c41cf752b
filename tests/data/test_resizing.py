"""Resized crops: to the bit what one antialiased `interpolate` makes of the crop, however small or oblong."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from rrcm_dist.data.resizing import Box, resized_crop

BOXES = [
    Box(0, 0, 427, 640), Box(10, 20, 400, 300), Box(3, 5, 120, 90), Box(100, 7, 33, 500), Box(0, 600, 400, 40),
    Box(5, 5, 1, 1), Box(5, 5, 1, 64), Box(5, 5, 64, 1), Box(40, 30, 64, 200), Box(40, 30, 200, 64), Box(9, 8, 64, 64),
]  # fmt: skip


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [64, 224])
def test_a_resized_crop_is_torchs_own_to_the_bit(photographs, interpolation, size: int) -> None:
    pixels = np.array(photographs[0])
    for box in BOXES:
        crop = torch.from_numpy(pixels).permute(2, 0, 1)[
            None, :, box.top : box.top + box.height, box.left : box.left + box.width
        ]
        expected = interpolate(crop, size=(size, size), mode=interpolation, antialias=True)[0]
        assert torch.equal(resized_crop(pixels, box, size, interpolation), expected), box
        assert torch.equal(resized_crop(pixels, box, size, interpolation, flip=True), expected.flip(2)), box


def test_a_crop_is_laid_out_plane_by_plane_and_its_own(photographs) -> None:
    pixels = np.array(photographs[0])
    before = pixels.copy()
    crop = resized_crop(pixels, Box(7, 9, 32, 32), 32, "bilinear")
    assert crop.is_contiguous()
    crop.zero_()
    np.testing.assert_array_equal(pixels, before)
