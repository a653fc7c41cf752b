"""Source: scikit-learn's handwritten digits, 1797 real 8×8 images that come with that package."""

import hashlib

import numpy as np
from PIL import Image

from rrcm_dist.errors import InvalidInput
from shards.source import Entry, Source

LARGEST_SIZE = 1024


def digits(held_out: int, part: str, size: int, seed: int) -> Source:
    """The digits as RGB pixels of `size` × `size` (bicubic), either those held out or the others ("train").

    Which `held_out` images are held out depends on `seed` alone; each class gives its share. The order is the
    package's. Raises `InvalidInput` for a number or size that cannot be.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = bunch.images.astype(np.float32), bunch.target.astype(np.int64)
    if not 10 <= held_out <= len(labels) - 10:
        raise InvalidInput(
            f"--held-out {held_out}: there are {len(labels)} digits; hold out between 10 and {len(labels) - 10}"
        )
    if not 8 <= size <= LARGEST_SIZE:
        raise InvalidInput(f"--size {size}: the digits are 8×8; choose between 8 and {LARGEST_SIZE}")
    is_held_out = _held_out(labels, held_out, seed)
    chosen = np.flatnonzero(is_held_out if part == "held-out" else ~is_held_out)
    entries = []
    digest = hashlib.sha256()
    for number in chosen:
        pixels = _enlarged(images[number], size)
        digest.update(bytes([labels[number]]) + pixels.tobytes())
        name = f"digit-{number:04d}"
        entries.append(Entry(name, int(labels[number]), pixels, name, pixels.nbytes))
    return Source(tuple(str(digit) for digit in range(10)), entries, digest.hexdigest())


def _held_out(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """bool (samples,): `count` samples, evenly from the classes, chosen by a hash of seed and position."""
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        by_hash = sorted(members, key=lambda number: hashlib.blake2b(f"{seed}/{number}".encode()).digest())
        # Places of every class are spread over (0, 1): the first `count` of all take the same share of each.
        place[by_hash] = (np.arange(len(members)) + 0.5) / len(members)
    selected = np.zeros(len(labels), dtype=bool)
    selected[np.lexsort((labels, place))[:count]] = True
    return selected


def _enlarged(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (size, size, 3) from float32 (8, 8) in [0, 16]."""
    smooth = np.asarray(Image.fromarray(image * (255 / 16)).resize((size, size), Image.Resampling.BICUBIC))
    grey = np.clip(np.rint(smooth), 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
