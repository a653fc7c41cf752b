"""The index of a folder of shards: which samples there are and where their bytes lie.

A dataset is a folder:

    index.json          format, version, classes, shards (name, bytes, sha256, samples), samples, sha256 of samples.npz
    samples.npz         one row a sample, shard after shard: offset, length, label, crc32, key
    shard-000000.tar …  WebDataset tars: KEY.EXT (the image, original bytes) and KEY.cls (the label, decimal)

The position of a row is the sample's id: everything else in the project speaks of samples by it. Reading a sample needs
the row and one ranged read of the shard; nothing needs the tar's own structure.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

FORMAT = "rrcm-shards"
VERSION = 1
INDEX_FILE = "index.json"
SAMPLES_FILE = "samples.npz"


@dataclass(frozen=True)
class Shard:
    """One tar of a dataset."""

    name: str
    bytes: int
    sha256: str
    samples: int


@dataclass(frozen=True)
class DatasetIndex:
    """A dataset's index in memory; arrays have one entry per sample id."""

    folder: Path
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    shard_of: np.ndarray
    """int32: position of the sample's shard in `shards`."""
    offset: np.ndarray
    """int64: first byte of the image within its shard."""
    length: np.ndarray
    """int64: bytes of the image."""
    label: np.ndarray
    """int32: position of the sample's class in `classes`."""
    crc32: np.ndarray
    """uint32: zlib.crc32 of the image's bytes."""
    keys: np.ndarray
    """str: name of the sample, unique in the dataset."""

    def __len__(self) -> int:
        return len(self.label)


def load_index(folder: str | Path) -> DatasetIndex:
    """Read and check a dataset's index.

    Raises `InvalidInput` where the folder or its index is missing or of another version, and `RunFailure` where the index
    is damaged or holds no sample; both say how to mend it.
    """
    raise NotImplementedError
