"""The three views of pre-training as far as workers make them: crops, flips, and parameters of the photometric part."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from rrcm_dist.config.parts import PretrainingViews
from rrcm_dist.data.decoding import EncodedImage
from rrcm_dist.data.photometric import draw_photometric
from rrcm_dist.data.resizing import Box
from rrcm_dist.data.views import centre_square, random_resized_crop
from rrcm_dist.random_streams import Coordinate, Purpose, numpy_generator


@dataclass(frozen=True)
class PretrainingSample:
    """The views of one image: uint8 (3, size, size), and float32 (P,) for the photometric part of a and b."""

    plain: Tensor
    view_a: Tensor
    view_b: Tensor
    photometric_a: np.ndarray
    photometric_b: np.ndarray
    crops: tuple[Box, Box]
    """Where views a and b lie in the image."""


class PretrainingView:
    """Makes a sample's three views; a pure function of the recipe's views and the coordinates of the sample's position.

    The plain view is resized bicubically as by Dhariwal & Nichol (2021), a and b bilinearly as by MoCo-v3 (Chen, Xie &
    He 2021), whose own transforms flip last: flipping first changes nothing, as no other part knows left from right.
    """

    def __init__(self, views: PretrainingViews, size: int) -> None:
        """`size` is the height and width of every view in pixels."""
        self._views, self._size = views, size

    def __call__(self, image: EncodedImage, *coordinates: Coordinate) -> PretrainingSample:
        """The views of `image` at the position that the coordinates name."""
        generator = numpy_generator(Purpose.VIEWS, *coordinates)
        flips = [chance < self._views.flip for chance in generator.random(3).tolist()]
        boxes = [
            centre_square(image.height, image.width),
            random_resized_crop(generator, image.height, image.width, self._views.crop_scale),
            random_resized_crop(generator, image.height, image.width, self._views.crop_scale),
        ]
        photometric_a, photometric_b = (draw_photometric(generator, self._views, view) for view in (0, 1))
        plain, view_a, view_b = image.crops(boxes, self._size, ["bicubic", "bilinear", "bilinear"], flips)
        return PretrainingSample(plain, view_a, view_b, photometric_a, photometric_b, (boxes[1], boxes[2]))
