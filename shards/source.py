"""What a dataset is built from: a list of images with their classes, in the source's own order."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

LONGEST_KEY = 90
"""A tar header holds names of up to 100 characters; the extension needs some."""
_SAFE_KEY = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a source."""

    key: str
    """Name in the tar, without extension."""
    label: int
    content: str | np.ndarray
    """The path of a file (a str: there may be millions), or pixels: uint8 (H, W, 3)."""
    origin: str
    """Where it comes from, for messages: a path relative to the source, or a name with an index."""
    size_bytes: int
    """Bytes it will take at most (estimated for pixels)."""


@dataclass(frozen=True)
class Source:
    """A listing, complete before the first byte is written."""

    classes: tuple[str, ...]
    entries: Sequence[Entry]
    """In the source's own order (the one that published evaluations count images in)."""
    fingerprint: str
    """Changes when an image is added, removed, renamed or changed."""
    notes: tuple[str, ...] = field(default=())
    """What was passed over, for the reader."""


def shuffled(entries: Sequence[Entry], seed: int) -> list[Entry]:
    """The entries in an order that mixes the classes: sorted by a keyed hash of their keys.

    A hash rather than a generator's permutation: the same under every version of every library, and an added image
    leaves the order of the others as it was.
    """
    secret = str(seed).encode()
    return sorted(entries, key=lambda entry: hashlib.blake2b(entry.key.encode(), key=secret, digest_size=16).digest())


def with_unique_keys(entries: Sequence[Entry]) -> list[Entry]:
    """Entries whose keys every tar reader takes: safe characters, short, unique; changed ones end with a hash.

    WebDataset takes a name apart at its first dot, so that a.b.jpg and a.c.jpg would be one sample.
    """
    uses = Counter(entry.key for entry in entries)
    return [
        entry if uses[entry.key] == 1 and _is_safe(entry.key) else replace(entry, key=_hashed_key(entry))
        for entry in entries
    ]


def _is_safe(key: str) -> bool:
    return len(key) <= LONGEST_KEY and _SAFE_KEY.fullmatch(key) is not None


def _hashed_key(entry: Entry) -> str:
    digest = hashlib.blake2b(entry.origin.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9_/-]", "_", entry.key)[: LONGEST_KEY - 20].strip("/")
    return f"{readable}-{digest}"
