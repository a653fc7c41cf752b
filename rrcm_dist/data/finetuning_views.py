"""What an image goes through in fine-tuning before noise is added: a weak, a strong, or a RandAugment view."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rrcm_dist.config.parts import FinetuningViews
from rrcm_dist.data.decoding import EncodedImage
from rrcm_dist.data.views import centre_square, random_resized_crop
from rrcm_dist.errors import InvalidInput
from rrcm_dist.random_streams import Coordinate, Purpose, numpy_generator, seeded_library_state
from rrcm_dist.torchvision_compat import allow_cpu_torch

FILL = (128, 128, 128)
"""Grey that shows where RandAugment moves an image away from its border: the mean of [-1, 1] pixels."""


class FinetuningView:
    """Makes a sample's view; a pure function of the recipe's views and the coordinates of the sample's position."""

    def __init__(self, views: FinetuningViews, size: int) -> None:
        """`size` is the height and width of the result. Raises `InvalidInput` for an unknown RandAugment string."""
        self._views, self._size = views, size
        self._augment = _rand_augment(views.randaugment, size) if views.kind == "randaugment" else None

    def __call__(self, image: EncodedImage, *coordinates: Coordinate) -> Tensor:
        """The view of `image` as uint8 (3, size, size), flipped as often as the recipe says."""
        generator = numpy_generator(Purpose.VIEWS, *coordinates)
        box = centre_square(image.height, image.width)
        if self._views.kind != "weak":
            box = random_resized_crop(generator, image.height, image.width, self._views.crop_scale)
        flip = generator.random() < self._views.flip
        (view,) = image.crops([box], self._size, ["bicubic"], [flip])
        if self._augment is not None:
            with seeded_library_state(Purpose.VIEWS, *coordinates, "randaugment"):
                view = self._augment(view)
        return view


def _rand_augment(description: str, size: int) -> Callable[[Tensor], Tensor]:
    """timm's RandAugment as its `create_transform` sets it up for bicubic resizing, on uint8 (3, size, size)."""
    allow_cpu_torch()
    from timm.data.auto_augment import rand_augment_transform

    settings = {"translate_const": int(size * 0.45), "img_mean": FILL, "interpolation": Image.Resampling.BICUBIC}
    try:
        augment = rand_augment_transform(description, settings)
    except (AssertionError, ValueError, KeyError) as error:
        raise InvalidInput(
            f"views.randaugment {description!r} is no RandAugment that timm knows {error}: "
            "write it like rand-m9-mstd0.5-inc1"
        ) from error

    def apply(view: Tensor) -> Tensor:
        picture = augment(Image.fromarray(np.ascontiguousarray(view.permute(1, 2, 0).numpy())))
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)

    return apply
