"""A block of noise draws of one image at one σ: the unit of work, of retry and of storage."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Stage(IntEnum):
    """What the draws of a block are for; the numbers are the ledger's."""

    SELECTION = 0
    """They choose the class and never enter its estimate."""
    ESTIMATION = 1
    """They estimate the probability of the chosen class."""


@dataclass(frozen=True)
class Block:
    """Which draws: its noise, and so its counts, is a function of the run's seed and of these alone."""

    image: int
    """Sample id: the image's position in the dataset."""
    key: str
    """The image's name in the dataset, unique there; this, not the position, names its noise."""
    sigma: float
    stage: Stage
    number: int
    """Position of the block within its stage, from 0."""
    draws: int
    """A block of fewer draws holds the first draws of a longer one."""

    @property
    def cost(self) -> int:
        """Its draws: each is one pass of the classifier."""
        return self.draws

    @property
    def title(self) -> str:
        """What messages call it: 'selection block 3'."""
        return f"{self.stage.name.lower()} block {self.number}"


@dataclass(frozen=True)
class BlockCounts:
    """What became of a block."""

    block: Block
    counts: np.ndarray
    """int64 (classes,): how many draws were given each class; sums to `block.draws`."""
    host: str
    """Name of the machine that counted."""
    seconds: float
    """Time that counting took."""

    def difference(self, other: "BlockCounts") -> str:
        """How far other counts of the same block are off: '3 of 100 draws'; empty where they are equal."""
        if np.array_equal(self.counts, other.counts):
            return ""
        return f"{int(np.abs(self.counts - other.counts).sum()) // 2} of {self.block.draws} draws"


def pack_counts(counts: np.ndarray) -> bytes:
    """Counts (classes,) as bytes: the width of a number (2 or 4 bytes), the classes that occur, then their counts.

    Numbers are unsigned and little-endian, of 16 bits; where one does not fit, all are of 32.
    """
    (classes,) = np.nonzero(counts)
    pairs = np.concatenate([classes, counts[classes]])
    width = 2 if pairs.max(initial=0) < 2**16 else 4
    return bytes([width]) + pairs.astype(f"<u{width}").tobytes()


def unpack_counts(packed: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(classes that occur, their counts) of `pack_counts`; raises ValueError for bytes that are not of that form."""
    if not packed or packed[0] not in (2, 4) or (len(packed) - 1) % (2 * packed[0]):
        raise ValueError("these bytes are no packed counts")
    pairs = np.frombuffer(packed, dtype=f"<u{packed[0]}", offset=1)
    return pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]


def spread_counts(packed: bytes, classes: int) -> np.ndarray:
    """Counts int64 (classes,) of `pack_counts`; raises ValueError or IndexError for bytes that are not of that form."""
    occurring, counts = unpack_counts(packed)
    spread = np.zeros(classes, dtype=np.int64)
    spread[occurring] = counts
    return spread
