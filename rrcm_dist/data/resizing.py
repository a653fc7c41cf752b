"""Crops of an image, resized by torch's antialiased uint8 filters: what torchvision's transforms do on tensors."""

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
    crop = np.ascontiguousarray(pixels[box.top : box.top + box.height, box.left : box.left + box.width])
    resized = crop if crop.shape[:2] == (size, size) else _resized(crop, size, interpolation)
    planes = np.empty((3, size, size), dtype=np.uint8)
    cv2.split(cv2.flip(resized, 1) if flip else resized, list(planes))  # several times as fast as torch's copy
    return torch.from_numpy(planes)


def _resized(crop: np.ndarray, size: int, interpolation: Interpolation) -> np.ndarray:
    """uint8 (H, W, 3) as uint8 (size, size, 3)."""
    # The leading dimension is added before the others change places: else torch does not see that channels come last,
    # and takes the planes apart and together on its way.
    crop_1CHW = torch.from_numpy(crop).unsqueeze(0).permute(0, 3, 1, 2)
    resized_1CHW = interpolate(crop_1CHW, size=(size, size), mode=interpolation, antialias=True)
    return resized_1CHW.permute(0, 2, 3, 1)[0].numpy()
