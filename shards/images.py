"""One image: can it be read, what is it really, and the bytes that go into a shard."""

import io
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rrcm_dist.errors import RunFailure
from shards.source import Entry

EXTENSION_OF_FORMAT = {
    "JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "GIF": "gif", "TIFF": "tif", "PPM": "ppm",
}  # fmt: skip
"""By what PIL finds in the bytes, whatever the file was called."""


class UnreadableImageError(Exception):
    """An image that goes to quarantine; the message is the reason."""


@dataclass(frozen=True)
class Resize:
    """Shrink images whose short side is longer than `short_side` pixels and write them as JPEG of `quality`."""

    short_side: int
    quality: int


def encoded(entry: Entry, resize: Resize | None) -> tuple[bytes, str]:
    """The image's bytes for the shard and their extension; untouched unless they are pixels or must shrink.

    Raises `UnreadableImageError` where the image cannot be read in full, `RunFailure` where its file is gone.
    """
    if isinstance(entry.content, np.ndarray):
        return png(entry.content), "png"
    data = _file_bytes(Path(entry.content))
    image = decoded(data)
    if resize is not None and min(image.size) > resize.short_side:
        return _shrunk(image, resize), "jpg"
    return data, EXTENSION_OF_FORMAT[str(image.format)]


def decoded(data: bytes) -> Image.Image:
    """The image with all its pixels read, checked to have an RGB form. Raises `UnreadableImageError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata and palettes; what matters raises
            image = Image.open(io.BytesIO(data))
            if image.format not in EXTENSION_OF_FORMAT:
                raise UnreadableImageError(f"format {image.format} is not taken")
            image.load()
            if image.mode != "RGB":
                image.convert("RGB")
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:  # its message holds the address of a Python object
        raise UnreadableImageError("not an image of a known format") from error
    except Exception as error:  # PIL's readers raise anything at all on damaged bytes
        raise UnreadableImageError(" ".join(str(error).split()) or type(error).__name__) from error
    return image


def png(pixels: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as PNG: every pixel exact."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _shrunk(image: Image.Image, resize: Resize) -> bytes:
    upright = ImageOps.exif_transpose(image).convert("RGB")
    scale = resize.short_side / min(upright.size)
    width, height = (max(resize.short_side, round(side * scale)) for side in upright.size)
    buffer = io.BytesIO()
    smaller = upright.resize((width, height), Image.Resampling.LANCZOS)
    smaller.save(buffer, format="JPEG", quality=resize.quality)
    return buffer.getvalue()


def _file_bytes(path: Path) -> bytes:
    try:
        # A pipe or a device among the images would be waited on for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnreadableImageError("not a regular file")
        data = path.read_bytes()
    except FileNotFoundError as error:
        if path.is_symlink():
            raise UnreadableImageError("a link to a file that is not there") from error
        raise RunFailure(
            f"{path} has gone since the source was listed: leave the source alone and run again"
        ) from error
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror}") from error
    if not data:
        raise UnreadableImageError("the file is empty")
    return data
