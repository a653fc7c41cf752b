"""Decoding: what Pillow sees, whatever the file is; resizing: what torchvision's antialiased transforms do."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from rrcm_dist.data import decoding
from rrcm_dist.data.decoding import DecodeError, EncodedImage
from rrcm_dist.data.resizing import Box
from rrcm_dist.torchvision_compat import allow_cpu_torch


def whole(data: bytes, size: int | None = None) -> torch.Tensor:
    image = EncodedImage(data)
    side = min(image.height, image.width)
    return image.crops([Box(0, 0, side, side)], size or side, ["bilinear"], [False])[0]


def pixels(image: Image.Image) -> torch.Tensor:
    side = min(image.size)
    return torch.from_numpy(np.array(image.convert("RGB").crop((0, 0, side, side)))).permute(2, 0, 1)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"quality": 95, "subsampling": 0}, {"progressive": True}])
def test_jpegs_of_every_colour_space_are_read_as_by_pillow(photographs, encoded, mode: str, options: dict) -> None:
    data = encoded(photographs[0].resize((90, 61)).convert(mode), "JPEG", **options)
    expected = pixels(Image.open(io.BytesIO(data)))
    assert (whole(data).int() - expected.int()).abs().max() <= 2


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1"])
def test_pngs_of_every_mode_are_exact(photographs, encoded, mode: str) -> None:
    picture = photographs[1].resize((50, 40)).convert(mode)
    assert torch.equal(whole(encoded(picture, "PNG")), pixels(picture.convert("RGBA")))


def test_sixteen_bit_greyscale_keeps_its_range(encoded) -> None:
    grey = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    expected = torch.from_numpy((grey >> 8).astype(np.uint8)).expand(3, -1, -1)
    assert torch.equal(whole(encoded(Image.fromarray(grey), "PNG")), expected)
    assert torch.equal(whole(encoded(Image.fromarray(grey), "TIFF")), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(photographs, encoded, orientation: int) -> None:
    upright = photographs[0].resize((96, 64))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[decoding.ORIENTATION_TAG] = orientation
    data = encoded(stored, "JPEG", quality=100, subsampling=0, exif=exif)
    assert (EncodedImage(data).height, EncodedImage(data).width) == (64, 96)
    assert (whole(data).int() - pixels(upright).int()).abs().float().mean() < 1


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_damage_is_noticed(photographs, encoded, format: str) -> None:
    data = encoded(photographs[0], format)
    for damaged in (b"", b"no image", data[: len(data) // 2], data[:3]):
        with pytest.raises(DecodeError):
            whole(damaged)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [64, 224])
def test_resized_crops_are_torchvisions(photographs, encoded, interpolation: str, size: int) -> None:
    allow_cpu_torch()
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import resized_crop

    data = encoded(photographs[0], "PNG")
    for box in (Box(10, 20, 400, 300), Box(3, 5, 120, 90), Box(0, 106, 427, 427)):
        (ours,) = EncodedImage(data).crops([box], size, [interpolation], [False])
        theirs = resized_crop(photographs[0], *box, [size, size], InterpolationMode(interpolation))
        difference = (ours.int() - pixels(theirs).int()).abs().float()
        assert difference.max() <= 8
        assert difference.mean() < 0.25


def test_a_reduced_decode_is_nearly_the_full_one(photographs, encoded, monkeypatch) -> None:
    data = encoded(photographs[0].resize((2560, 1708), Image.Resampling.LANCZOS), "JPEG", quality=92)
    boxes = [Box(0, 426, 1708, 1708), Box(100, 1000, 900, 1200)]
    reduced = EncodedImage(data).crops(boxes, 64, ["bicubic", "bilinear"], [False, False])
    assert EncodedImage(data)._largest_reduction(boxes, 64) == 4
    monkeypatch.setattr(decoding, "RESERVE", 10**6)
    assert EncodedImage(data)._largest_reduction(boxes, 64) == 1
    for fast, full in zip(
        reduced, EncodedImage(data).crops(boxes, 64, ["bicubic", "bilinear"], [False, False]), strict=True
    ):
        difference = (fast.int() - full.int()).abs().float()
        assert difference.mean() < 1
        assert difference.max() <= 16


def test_an_image_of_the_right_size_is_not_resampled(photographs, encoded) -> None:
    picture = photographs[0].resize((32, 32))
    assert torch.equal(whole(encoded(picture, "PNG"), 32), pixels(picture))
