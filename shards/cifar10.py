"""Source: CIFAR-10, from the official python batches (every pixel exact) or from a folder of images per class."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from rrcm_dist.errors import InvalidInput, RunFailure
from shards.image_folder import image_folder
from shards.source import Entry, Source

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES_FOLDER = "cifar-10-batches-py"
BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
SIDE = 32
NAMES_A_BATCH_MAY_USE = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


def cifar10(folder: Path, split: str) -> Source:
    """CIFAR-10's `split` ("train" or "test") below `folder`, in the official order where it holds the official batches.

    Taken are: the batches, in `folder` or its cifar-10-batches-py; folder/SPLIT/CLASS/IMAGE; folder/CLASS/IMAGE.
    Raises `InvalidInput` where it is none of them and `RunFailure` for a damaged batch.
    """
    for batches in (folder, folder / BATCHES_FOLDER):
        if (batches / "batches.meta").exists() or any((batches / name).exists() for name in BATCHES[split]):
            return _from_batches(batches, split)
    images = folder / split if (folder / split).is_dir() else folder
    source = image_folder(images)
    if source.classes != CLASSES:
        raise InvalidInput(
            f"{images} is not CIFAR-10: it holds the folders {', '.join(source.classes[:12])}; wanted are "
            f"{BATCHES_FOLDER} or a folder for each of {', '.join(CLASSES)}"
        )
    return source


def _from_batches(folder: Path, split: str) -> Source:
    entries = []
    digest = hashlib.sha256()
    for name in BATCHES[split]:
        pixels, labels = _read_batch(folder / name)
        digest.update(pixels.tobytes() + labels.tobytes())
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            key = f"{name}/{number:05d}"
            entries.append(Entry(key, int(label), image, key, image.nbytes))
    return Source(CLASSES, entries, digest.hexdigest())


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, 32, 32, 3) and int64 (N,) of one official batch."""
    if not path.is_file():
        raise InvalidInput(f"{path} is missing: unpack the whole of cifar-10-python.tar.gz")
    mend = "unpack cifar-10-python.tar.gz again"
    try:
        with open(path, "rb") as file:
            batch = _BatchReader(file, encoding="bytes").load()
        data = np.asarray(batch[b"data"])
        labels = np.asarray(batch[b"labels"], dtype=np.int64)
    except OSError as error:
        raise RunFailure(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # unpickling damaged bytes raises anything at all
        raise RunFailure(f"{path} is damaged ({type(error).__name__}: {error}): {mend}") from error
    sound = data.dtype == np.uint8 and data.ndim == 2 and data.shape[1] == 3 * SIDE * SIDE and len(data) == len(labels)
    if not sound or len(labels) == 0 or labels.min() < 0 or labels.max() >= len(CLASSES):
        raise RunFailure(f"{path} is no CIFAR-10 batch (data {data.dtype} {data.shape}, {len(labels)} labels): {mend}")
    return np.ascontiguousarray(data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)), labels


class _BatchReader(pickle.Unpickler):
    """Reads arrays and nothing else: a pickle could otherwise run anything."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in NAMES_A_BATCH_MAY_USE:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR-10 batch needs")
        return super().find_class(module, name)
