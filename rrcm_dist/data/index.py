"""The index of a folder of shards: which samples there are and where their bytes lie.

A dataset is a folder, or a place in a store (a URL) with the same files:

    index.json          format, version, classes, shards (name, bytes, sha256, samples), samples, sha256 of samples.npz,
                        and what made it (built, formats, quarantined)
    samples.npz         one row a sample, shard after shard: offset, length, label, crc32, key
    shard-000000.tar …  WebDataset tars: KEY.EXT (the image, original bytes) and KEY.cls (the label, decimal)
    quarantine.tsv      images that could not be read, where there were any: path, reason

The position of a row is the sample's id: everything else in the project speaks of samples by it. Reading a sample needs
the row and one ranged read of the shard; nothing needs the tar's own structure.
"""

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rrcm_dist.data.stores import StoreSettings, downloaded, sizes_in_store, text_from_store
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.files import sha256, whole_file, write_json
from rrcm_dist.storage.store import is_url

FORMAT = "rrcm-shards"
VERSION = 1
INDEX_FILE = "index.json"
SAMPLES_FILE = "samples.npz"
UNFINISHED_FOLDER = ".building"
"""What a build keeps in the folder until the index is written."""
COLUMNS = {"offset": "int64", "length": "int64", "label": "int32", "crc32": "uint32"}
"""Columns of samples.npz beside `key` (ASCII)."""

_REBUILD = "build the dataset again with --force"
_BUILD = "`python -m shards build`"


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

    place: str
    """Its folder or URL, as it was given."""
    store: StoreSettings
    """How it is read where it is a URL."""
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


def load_index(place: str | Path, store: StoreSettings | None = None) -> DatasetIndex:
    """Read and check a dataset's index, and that its shards are there in full length (their bytes: `shards verify`).

    `place` is a folder or a URL; `store` says how a URL is read. Raises `InvalidInput` where the dataset or its index
    is missing or of another version, and `RunFailure` where the index is damaged, holds no sample, or a shard is
    missing or of another length, or where a store fails for long; each says how to mend it.
    """
    store = store or StoreSettings()
    header = read_header(place, store)
    with samples_file(place, header, store) as path:
        if sha256(path) != header["samples_sha256"]:
            named = _named(place, SAMPLES_FILE)
            raise RunFailure(f"{named} is damaged (its sha256 is not the index's): copy it again, or {_REBUILD}")
        index = read_samples(path, header, place, store)
    problems = contradictions(index, header["samples"]) + absent_shards(index)
    if problems:
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise RunFailure(f"{place}: {problems[0]}{more}: copy the folder again, or {_REBUILD}")
    return index


def read_header(place: str | Path, store: StoreSettings | None = None) -> dict[str, Any]:
    """index.json as a dict whose format, version and fields have been checked; `shards` are `Shard`s.

    Raises `InvalidInput` where it is missing or of another format or version, `RunFailure` where it is damaged.
    """
    path = _named(place, INDEX_FILE)
    try:
        header = json.loads(_header_text(place, store or StoreSettings()))
    except OSError as error:
        raise RunFailure(f"{path} cannot be read: {error.strerror}: mend its permissions or its disk") from error
    except ValueError as error:
        if isinstance(error, InvalidInput):
            raise
        raise RunFailure(f"{path} is damaged ({error}): copy it again, or {_REBUILD}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InvalidInput(
            f"{path} is not an index of this kind (no format {FORMAT!r}): name a folder made by {_BUILD}"
        )
    if header.get("version") != VERSION:
        raise InvalidInput(f"{path} is of version {header.get('version')!r}, this program reads {VERSION}: {_REBUILD}")
    try:
        shards = tuple(
            Shard(str(s["name"]), int(s["bytes"]), _checksum(s["sha256"]), int(s["samples"])) for s in header["shards"]
        )
        classes = tuple(str(name) for name in header["classes"])
        return {
            **header,
            "shards": shards,
            "classes": classes,
            "samples": int(header["samples"]),
            "samples_sha256": _checksum(header["samples_sha256"]),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise RunFailure(f"{path} is damaged (bad or missing field: {error}): copy it again, or {_REBUILD}") from error


def _checksum(text: str) -> str:
    """A SHA-256 as it stands in index.json; files of the cache are named by it."""
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError(f"{text!r} is no sha256")
    return text


def _header_text(place: str | Path, store: StoreSettings) -> str:
    if is_url(place):
        return text_from_store(str(place), INDEX_FILE, store)
    folder = Path(place)
    if not (folder / INDEX_FILE).is_file():
        raise InvalidInput(_why_no_index(folder))
    return (folder / INDEX_FILE).read_text(encoding="utf-8")


def _named(place: str | Path, name: str) -> str:
    return f"{str(place).rstrip('/')}/{name}"


def _why_no_index(folder: Path) -> str:
    if not folder.exists():
        return f"{folder} does not exist: name a folder of shards, made by {_BUILD}"
    if not folder.is_dir():
        return f"{folder} is not a folder: name a folder of shards, made by {_BUILD}"
    if (folder / UNFINISHED_FOLDER).is_dir():
        return f"{folder} is not finished: run the same {_BUILD} command again, it goes on from there"
    return f"{folder} holds no {INDEX_FILE}: name a folder of shards, made by {_BUILD}"


@contextmanager
def samples_file(place: str | Path, header: Mapping[str, Any], store: StoreSettings) -> Iterator[Path]:
    """samples.npz on this machine: the folder's own, or the store's, downloaded. Raises `InvalidInput` if missing."""
    if is_url(place):
        with downloaded(str(place), SAMPLES_FILE, header["samples_sha256"], store) as path:
            yield path
        return
    path = Path(place) / SAMPLES_FILE
    if not path.is_file():
        raise InvalidInput(f"{path} is missing: copy the whole folder, or {_REBUILD}")
    yield path


def read_samples(path: Path, header: Mapping[str, Any], place: str | Path, store: StoreSettings) -> DatasetIndex:
    """The samples of samples.npz under a header of `read_header`, unchecked but for the presence of every column.

    Raises `RunFailure` where the file cannot be read or its rows are not as many as the shards say.
    """
    named = _named(place, SAMPLES_FILE)
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = {name: file[name].astype(dtype) for name, dtype in COLUMNS.items()}
            keys = file["key"].astype(str)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RunFailure(f"{named} cannot be read ({error}): copy it again, or {_REBUILD}") from error
    shards = header["shards"]
    rows = sum(shard.samples for shard in shards)
    for name, column in (*columns.items(), ("key", keys)):
        if len(column) != rows:
            raise RunFailure(
                f"{named} has {len(column)} rows of {name} where the shards hold {rows} samples: copy the folder "
                f"again, or {_REBUILD}"
            )
    shard_of = np.repeat(np.arange(len(shards), dtype=np.int32), [shard.samples for shard in shards])
    return DatasetIndex(str(place), store, header["classes"], shards, shard_of, keys=keys, **columns)


def contradictions(index: DatasetIndex, samples: int) -> list[str]:
    """What in an index cannot be, in words; empty where it is sound. `samples` is the count that index.json states."""
    found = []
    if len(index) == 0:
        found.append("the dataset holds no sample")
    if samples != len(index):
        found.append(f"{INDEX_FILE} states {samples} samples, {SAMPLES_FILE} holds {len(index)}")
    shard_bytes = np.array([shard.bytes for shard in index.shards], dtype=np.int64)
    outside = (index.offset < 0) | (index.length <= 0)
    if len(index):
        outside |= index.offset + index.length > shard_bytes[index.shard_of]
    wrong_label = (index.label < 0) | (index.label >= len(index.classes))
    for rows, what in ((outside, "lies outside its shard"), (wrong_label, f"is none of {len(index.classes)} classes")):
        for row in np.flatnonzero(rows)[:3]:
            subject = "the label of sample" if rows is wrong_label else "sample"
            shard = index.shards[index.shard_of[row]].name
            found.append(f"{subject} {index.keys[row]} (row {row}, {shard}) {what}")
    return found


def absent_shards(index: DatasetIndex) -> list[str]:
    """Shards that are missing or of another length than the index says, in words; in a store as far as it tells."""
    names = [shard.name for shard in index.shards]
    sizes = sizes_in_store(index.place, names, index.store) if is_url(index.place) else _sizes_here(index.place, names)
    found = []
    for shard in index.shards:
        if shard.name not in sizes:
            continue
        size = sizes[shard.name]
        if size is None:
            found.append(f"{shard.name} is missing")
        elif size != shard.bytes:
            found.append(f"{shard.name} has {size} bytes where the index says {shard.bytes}")
    return found


def _sizes_here(folder: str, names: Sequence[str]) -> dict[str, int | None]:
    paths = {name: Path(folder) / name for name in names}
    return {name: path.stat().st_size if path.is_file() else None for name, path in paths.items()}


def write_index(
    folder: str | Path,
    classes: Sequence[str],
    shards: Sequence[Shard],
    columns: Mapping[str, np.ndarray],
    about: Mapping[str, Any],
) -> None:
    """Write samples.npz and then index.json, whose presence makes the folder a dataset.

    `columns` are those of `COLUMNS` and `key`, one row a sample, shard after shard; `about` is added to index.json as
    it is.
    """
    folder = Path(folder)
    samples_path = folder / SAMPLES_FILE
    with whole_file(samples_path) as aside, open(aside, "wb") as file:
        arrays = {name: np.asarray(columns[name], dtype=dtype) for name, dtype in COLUMNS.items()}
        np.savez(file, **arrays, key=np.asarray(columns["key"], dtype=np.bytes_))  # type: ignore[arg-type]
    write_json(
        folder / INDEX_FILE,
        {
            "format": FORMAT,
            "version": VERSION,
            "samples": len(columns["key"]),
            "samples_sha256": sha256(samples_path),
            "classes": list(classes),
            **about,
            "shards": [asdict(shard) for shard in shards],
        },
    )


def training_identity(index: DatasetIndex) -> str:
    """As `content_identity`, but also of how many samples each shard has, on which the order of samples depends."""
    samples = ",".join(str(shard.samples) for shard in index.shards)
    return hashlib.sha256(f"{content_identity(index)} {samples}".encode()).hexdigest()


def content_identity(index: DatasetIndex) -> str:
    """Hexadecimal SHA-256 over classes, keys, labels and the images' checksums; how they are packed changes nothing."""
    digest = hashlib.sha256("\x00".join(index.classes).encode())
    digest.update("\x00".join(map(str, index.keys)).encode())
    digest.update(np.ascontiguousarray(index.label, dtype="<i4").data)
    digest.update(np.ascontiguousarray(index.crc32, dtype="<u4").data)
    return digest.hexdigest()
