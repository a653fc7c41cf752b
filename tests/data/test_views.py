"""Crops are drawn as torchvision draws them."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy import stats

from rrcm_dist.data.decoding import EncodedImage
from rrcm_dist.data.views import centre_square, random_resized_crop
from rrcm_dist.torchvision_compat import allow_cpu_torch

DRAWS = 4000


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (32, 32), (60, 400), (400, 60), (9, 8)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.4, 1.0)])
def test_random_resized_crops_have_torchvisions_distribution(height: int, width: int, scale) -> None:
    allow_cpu_torch()
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    picture = torch.empty(3, height, width)
    theirs = np.array([RandomResizedCrop.get_params(picture, scale, (3 / 4, 4 / 3)) for _ in range(DRAWS)])
    generator = np.random.default_rng(1)
    ours = np.array([random_resized_crop(generator, height, width, scale) for _ in range(DRAWS)])
    measures = {
        "area": lambda b: b[:, 2] * b[:, 3],
        "ratio": lambda b: np.log(b[:, 3] / b[:, 2]),
        "centre row": lambda b: b[:, 0] + b[:, 2] / 2,
        "centre column": lambda b: b[:, 1] + b[:, 3] / 2,
        "top": lambda b: b[:, 0],
    }
    for name, measure in measures.items():
        assert stats.ks_2samp(measure(ours), measure(theirs)).pvalue > 1e-4, name


def test_random_resized_crops_lie_within_the_image() -> None:
    generator = np.random.default_rng(0)
    for _ in range(2000):
        height, width = generator.integers(1, 40, 2).tolist()
        top, left, crop_height, crop_width = random_resized_crop(generator, height, width, (0.08, 1.0))
        assert 0 <= top <= top + crop_height <= height
        assert 0 <= left <= left + crop_width <= width
        assert crop_height > 0
        assert crop_width > 0


@pytest.mark.parametrize("size", [(500, 375), (375, 501), (64, 64), (1200, 900)])
def test_the_centre_square_is_guided_diffusions_centre_crop(photographs, encoded, size: tuple[int, int]) -> None:
    sharp = photographs[0].resize(size, Image.Resampling.LANCZOS)
    smooth = sharp.filter(ImageFilter.GaussianBlur(5 * min(size) / 224))
    ours, theirs = _both_centre_crops(smooth, encoded)
    # The other rounds the long side to whole pixels: a shift by up to half a pixel, hardly seen on a smooth image.
    assert (ours - theirs).abs().mean() < 1
    ours, theirs = _both_centre_crops(sharp, encoded)
    # Halving by boxes first, as the other does from twice the size on, is somewhat softer than one bicubic step.
    assert _sharpness(ours) == pytest.approx(_sharpness(theirs), rel=0.2 if min(size) >= 448 else 0.08)
    assert ours.mean().item() == pytest.approx(theirs.mean().item(), abs=1)


def _both_centre_crops(picture: Image.Image, encoded) -> tuple[torch.Tensor, torch.Tensor]:
    image = EncodedImage(encoded(picture, "PNG"))
    (ours,) = image.crops([centre_square(image.height, image.width)], 224, ["bicubic"], [False])
    return ours.float(), torch.from_numpy(np.array(_center_crop_arr(picture, 224))).permute(2, 0, 1).float()


def _sharpness(image: torch.Tensor) -> float:
    return image.diff(dim=2).abs().mean().item()


def _center_crop_arr(picture: Image.Image, size: int) -> Image.Image:
    """Dhariwal & Nichol 2021, in their words: halve by boxes, then resize bicubically, then crop the centre."""
    while min(picture.size) >= 2 * size:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    scale = size / min(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return picture.crop((left, top, left + size, top + size))
