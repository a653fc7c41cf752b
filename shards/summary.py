"""What a dataset holds, in figures."""

import io
from collections import Counter
from typing import Any

import numpy as np
from PIL import Image

from rrcm_dist.data.checked_reading import checked_reader
from rrcm_dist.data.index import DatasetIndex, load_index, read_header

IMAGES_LOOKED_AT = 200


def summarize(place: str) -> dict[str, Any]:
    """Figures of the dataset as JSON values; sizes are of up to `IMAGES_LOOKED_AT` images, evenly spaced."""
    header = read_header(place)
    index = load_index(place)
    shard_bytes = [shard.bytes for shard in index.shards]
    return {
        "folder": place,
        "samples": len(index),
        "classes": len(index.classes),
        "class_names": list(index.classes),
        "samples_per_class": _spread(np.bincount(index.label, minlength=len(index.classes))),
        "shards": len(index.shards),
        "bytes": sum(shard_bytes),
        "bytes_per_shard": _spread(np.array(shard_bytes)),
        "samples_per_shard": _spread(np.array([shard.samples for shard in index.shards])),
        "bytes_per_image": _spread(index.length),
        "formats": header.get("formats", {}),
        "quarantined": header.get("quarantined", 0),
        "built": header.get("built", {}),
        "images_looked_at": _images(index),
    }


def _spread(values: np.ndarray) -> dict[str, float]:
    return {"least": values.min().item(), "median": float(np.median(values)), "most": values.max().item()}


def _images(index: DatasetIndex) -> dict[str, Any]:
    """Sizes and colour modes as stored, before any rotation that EXIF asks for."""
    rows = np.unique(np.linspace(0, len(index) - 1, IMAGES_LOOKED_AT).astype(np.int64)).tolist()
    reader = checked_reader(index)
    reader.expect(rows)
    widths, heights, modes = [], [], Counter[str]()
    for row in rows:
        try:
            with Image.open(io.BytesIO(reader.read(row) or b"")) as image:
                widths.append(image.width)
                heights.append(image.height)
                modes[image.mode] += 1
        except OSError:
            modes["unreadable"] += 1
    sizes = {"width": _spread(np.array(widths)), "height": _spread(np.array(heights))} if widths else {}
    return {"count": len(rows), **sizes, "modes": dict(modes)}
