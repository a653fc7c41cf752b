"""Where the views of an image are cropped from it: pure functions of a generator and the image's size."""

import math

import numpy as np

from rrcm_dist.data.resizing import Box

ASPECT_RATIOS = (3 / 4, 4 / 3)
ATTEMPTS = 10


def centre_square(height: int, width: int) -> Box:
    """The largest centred square; resized to s it is the image with its short side resized to s, centre-cropped."""
    side = min(height, width)
    return Box((height - side) // 2, (width - side) // 2, side, side)


def random_resized_crop(generator: np.random.Generator, height: int, width: int, scale: tuple[float, float]) -> Box:
    """The crop of torchvision's RandomResizedCrop: area uniform in `scale` (shares of the image), log of the aspect
    ratio uniform in log (3/4, 4/3); after ten attempts that do not fit, the largest centred crop within those ratios.
    """
    shares, log_ratios = generator.random((2, ATTEMPTS)).tolist()
    place_vertical, place_horizontal = generator.random(2).tolist()
    low, high = math.log(ASPECT_RATIOS[0]), math.log(ASPECT_RATIOS[1])
    for share, log_ratio in zip(shares, log_ratios, strict=True):
        area = height * width * (scale[0] + share * (scale[1] - scale[0]))
        ratio = math.exp(low + log_ratio * (high - low))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(place_vertical * (height - crop_height + 1))
            left = int(place_horizontal * (width - crop_width + 1))
            return Box(top, left, crop_height, crop_width)
    return _largest_within_ratios(height, width)


def _largest_within_ratios(height: int, width: int) -> Box:
    crop_height, crop_width = height, width
    if width / height < ASPECT_RATIOS[0]:
        crop_height = max(1, round(width / ASPECT_RATIOS[0]))
    elif width / height > ASPECT_RATIOS[1]:
        crop_width = max(1, round(height * ASPECT_RATIOS[1]))
    return Box((height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width)
