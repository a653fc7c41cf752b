"""From a sample's bytes to uint8 RGB pixels and their resized crops.

JPEGs go through libjpeg-turbo (simplejpeg); where every crop is to shrink far, they are decoded at 1/2, 1/4 or 1/8 of
their size, which halves the time for photographs of several megapixels. PNGs go through OpenCV, four times as fast as
Pillow on small ones. Anything else (CMYK, EXIF-rotated or slightly damaged JPEG, other formats) goes through Pillow.
"""

import io
import warnings
from collections.abc import Sequence

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps
from torch import Tensor

from rrcm_dist.data.resizing import Box, Interpolation, resized_crop

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # damaged files are our own to report

RESERVE = 2
"""A crop decoded at reduced scale is still at least this many times larger than what it is resized to, so that the
result differs from a full decode by less than one grey level on average (compare Pillow's `reducing_gap`)."""

ORIENTATION_TAG = 274
START_OF_SCAN = 0xDA
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class DecodeError(ValueError):
    """The bytes are no image that can be read."""


class EncodedImage:
    """An image whose size is known and whose pixels are decoded on demand; height and width are those seen upright."""

    def __init__(self, data: bytes) -> None:
        """Read the header. Raises `DecodeError` where it cannot be."""
        self._data = data
        self._decoded: np.ndarray | None = None
        size = _plain_jpeg_size(data)
        if size is None:
            self._decoded = _decode(data)
            size = self._decoded.shape[:2]
        self.height, self.width = size

    def crops(
        self, boxes: Sequence[Box], size: int, interpolations: Sequence[Interpolation], flips: Sequence[bool]
    ) -> list[Tensor]:
        """Each box resized to uint8 (3, size, size) and flipped or not, decoding once.

        Raises `DecodeError` for damaged bytes.
        """
        pixels = self._pixels(self._largest_reduction(boxes, size))
        return [
            resized_crop(pixels, self._scaled(box, pixels), size, interpolation, flip)
            for box, interpolation, flip in zip(boxes, interpolations, flips, strict=True)
        ]

    def _largest_reduction(self, boxes: Sequence[Box], size: int) -> int:
        smallest = min(min(box.height, box.width) for box in boxes)
        return next((r for r in (8, 4, 2) if smallest >= r * RESERVE * size), 1)

    def _pixels(self, reduction: int) -> np.ndarray:
        """uint8 (height/reduction, width/reduction, 3), rounded up; only plain JPEGs are reduced."""
        if self._decoded is None:
            try:
                return simplejpeg.decode_jpeg(
                    self._data,
                    min_height=-(-self.height // reduction),
                    min_width=-(-self.width // reduction),
                    min_factor=reduction,
                )
            except ValueError:  # damaged: Pillow reads some of these, and says what is wrong with the rest
                self._decoded = _decode(self._data)
        return self._decoded

    def _scaled(self, box: Box, pixels: np.ndarray) -> Box:
        """`box` on the decoded, possibly smaller, pixels."""
        rows, columns = pixels.shape[0] / self.height, pixels.shape[1] / self.width
        top, left = round(box.top * rows), round(box.left * columns)
        bottom, right = round((box.top + box.height) * rows), round((box.left + box.width) * columns)
        return Box(top, left, bottom - top, right - left)


def _plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of an upright greyscale or YCbCr JPEG; None for anything else."""
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, colour_space, _ = simplejpeg.decode_jpeg_header(data)
        if colour_space not in ("YCbCr", "Gray") or _is_rotated(data):
            return None
    except Exception:  # whatever a library makes of damaged bytes: Pillow has the last word
        return None
    return height, width


def _is_rotated(data: bytes) -> bool:
    """Whether a JPEG's EXIF asks for turning. Walks the segments up to the first scan: most files have no EXIF."""
    position = 2
    while data[position] == 0xFF and data[position + 1] != START_OF_SCAN:
        if data[position + 4 : position + 10] == b"Exif\x00\x00":
            with Image.open(io.BytesIO(data)) as image:
                return image.getexif().get(ORIENTATION_TAG, 1) != 1
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def _decode(data: bytes) -> np.ndarray:
    """The whole image, upright, as uint8 (height, width, 3). Raises `DecodeError` where it cannot be."""
    if data.startswith(PNG_SIGNATURE):
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if pixels is not None:
            return pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                return np.array(_to_rgb(ImageOps.exif_transpose(image)))
    except Exception as error:  # Pillow's readers raise OSError, SyntaxError, struct.error, zlib.error and more
        raise DecodeError(str(error)) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
