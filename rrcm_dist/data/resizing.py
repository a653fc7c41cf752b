"""Crops of an image, resized by torch's antialiased uint8 filters: what torchvision's transforms do on tensors.

Torch's filter is several times as fast along rows as along columns, and turning a crop costs little; so the columns are
resized as rows of the turned crop. The pixels are the same to the bit as those of one two-dimensional `interpolate`.
"""

from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

cv2.setNumThreads(0)  # one thread per loading process

Interpolation = Literal["bilinear", "bicubic"]


class Box(NamedTuple):
    """A rectangle of an upright image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def resized_crop(pixels: np.ndarray, box: Box, size: int, interpolation: Interpolation, flip: bool = False) -> Tensor:
    """`box` of uint8 (H, W, 3) as uint8 (3, size, size), with left and right exchanged where `flip` says so."""
    crop = pixels[box.top : box.top + box.height, box.left : box.left + box.width]
    turned = _resized_rows(cv2.transpose(crop), size, interpolation)
    upright = cv2.rotate(turned, cv2.ROTATE_90_CLOCKWISE) if flip else cv2.transpose(turned)
    planes = np.empty((3, size, size), dtype=np.uint8)
    cv2.split(_resized_rows(upright, size, interpolation), list(planes))
    return torch.from_numpy(planes)


def _resized_rows(pixels: np.ndarray, rows: int, interpolation: Interpolation) -> np.ndarray:
    """uint8 (H, W, 3) with `rows` in place of H."""
    if len(pixels) == rows:
        return pixels
    # The leading dimension is added before the others change places: only so torch takes the fast path for them.
    pixels_1CHW = torch.from_numpy(pixels).unsqueeze(0).permute(0, 3, 1, 2)
    resized_1CHW = interpolate(pixels_1CHW, size=(rows, pixels.shape[1]), mode=interpolation, antialias=True)
    return resized_1CHW.permute(0, 2, 3, 1)[0].numpy()
