"""Is every byte of a dataset what its index says? Each problem is named with its shard and sample."""

import hashlib
import mmap
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rrcm_dist.data.index import (
    SAMPLES_FILE,
    DatasetIndex,
    Shard,
    contradictions,
    read_header,
    read_samples,
    samples_file,
)
from rrcm_dist.data.stores import StoreSettings
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.files import sha256
from rrcm_dist.progress import progress_bar
from rrcm_dist.storage.failures import NotInStore
from rrcm_dist.storage.store import is_url, open_store
from shards.images import UnreadableImageError, decoded
from shards.tar_writer import BLOCK, END, Row, label_member, padding
from shards.workers import each


@dataclass(frozen=True)
class Verified:
    """What a verification looked at and found."""

    samples: int
    shards: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class ShardCheck:
    """One shard to look at; goes to a worker process."""

    place: str
    shard: Shard
    first_row: int
    rows: tuple[Row, ...] | None
    """None where samples.npz cannot be read: then the checksum of the whole shard has to do."""
    decode: bool


def verify(place: str, decode: bool, jobs: int) -> Verified:
    """Compare every shard with the index, byte for byte; with `decode`, decode every image as well.

    Raises `InvalidInput` where there is no dataset and `RunFailure` where index.json itself cannot be read; everything
    else is among the problems.
    """
    header = read_header(place)
    index, problems = _samples(place, header)
    problems += _unlisted(place, header["shards"])
    samples = {shard.name: shard.samples for shard in header["shards"]}
    checks = _checks(place, header["shards"], index, decode)
    found: dict[str, list[str]] = {}
    with progress_bar("verifying", sum(samples.values()), unit="samples") as bar:
        for name, in_shard in each(check_shard, checks, min(jobs, max(1, len(samples)))):
            found[name] = in_shard
            bar.advance(samples[name], note=f"{sum(map(len, found.values()))} problems" if any(found.values()) else "")
    problems += [f"{name}: {problem}" for name in samples for problem in found[name]]
    return Verified(sum(samples.values()), len(samples), tuple(problems))


def _samples(place: str, header: dict[str, Any]) -> tuple[DatasetIndex | None, list[str]]:
    """samples.npz as far as it can be read, and what is wrong with it."""
    problems = []
    store = StoreSettings()
    try:
        with samples_file(place, header, store) as path:
            if sha256(path) != header["samples_sha256"]:
                problems.append(f"{SAMPLES_FILE} is damaged: its sha256 is not the one in index.json")
            index = read_samples(path, header, place, store)
    except InvalidInput:
        return None, [f"{SAMPLES_FILE} is missing"]
    except RunFailure as error:
        return None, [*problems, str(error)]
    problems += contradictions(index, header["samples"])
    keys, uses = np.unique(index.keys, return_counts=True)
    problems += [f"the key {keys[i]} is used by {uses[i]} samples" for i in np.flatnonzero(uses > 1)]
    return index, problems


def _unlisted(place: str, shards: tuple[Shard, ...]) -> list[str]:
    listed = {shard.name for shard in shards}
    with suppress(InvalidInput):  # by http, listing is often not allowed
        there = open_store(place).names() if is_url(place) else [path.name for path in Path(place).glob("*.tar")]
        extra = sorted(name for name in there if name.endswith(".tar") and name not in listed)
        return [f"{name}: the index does not list this shard" for name in extra]
    return []


def _checks(place: str, shards: tuple[Shard, ...], index: DatasetIndex | None, decode: bool) -> Iterator[ShardCheck]:
    first = 0
    for shard in shards:
        span = slice(first, first + shard.samples)
        rows = None
        if index is not None:
            columns = (index.keys[span], index.label[span], index.offset[span], index.length[span], index.crc32[span])
            rows = tuple(Row(*values) for values in zip(*(column.tolist() for column in columns), strict=True))
        yield ShardCheck(place, shard, first, rows, decode)
        first += shard.samples


def check_shard(check: ShardCheck) -> tuple[str, list[str]]:
    """The shard's name and its problems."""
    shard = check.shard
    try:
        with _local(check) as path:
            return shard.name, _compare_file(path, check)
    except (NotInStore, FileNotFoundError):
        return shard.name, [f"the shard is missing ({shard.samples} samples)"]
    except OSError as error:
        return shard.name, [f"the shard cannot be read: {error.strerror or error}"]


@contextmanager
def _local(check: ShardCheck) -> Iterator[Path]:
    """The shard on this machine; out of a store it is copied to where temporary files are, for as long as needed."""
    if not is_url(check.place):
        yield Path(check.place) / check.shard.name
        return
    with tempfile.TemporaryDirectory(prefix="rrcm-verify-") as folder:
        path = Path(folder) / check.shard.name
        open_store(check.place).download(check.shard.name, path)
        yield path


def _compare_file(path: Path, check: ShardCheck) -> list[str]:
    if path.stat().st_size == 0:
        return [f"the shard is empty where the index says {check.shard.bytes} bytes"]
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _compare(data, check)


def _compare(data: mmap.mmap, check: ShardCheck) -> list[str]:
    shard, size = check.shard, len(data)
    problems = []
    if size < shard.bytes:
        problems.append(f"truncated: {size} bytes of {shard.bytes}")
    elif size > shard.bytes:
        problems.append(f"{size - shard.bytes} bytes too long: {size} where the index says {shard.bytes}")
    intact = hashlib.sha256(data).hexdigest() == shard.sha256
    in_samples = list(_sample_problems(data, check)) if check.rows is not None else []
    if intact:
        in_samples = [
            f"{problem} (the shard's sha256 is right: it is the index that is wrong)" for problem in in_samples
        ]
    elif not problems and not in_samples:
        where = "outside of the samples' content" if check.rows is not None else "somewhere"
        problems.append(f"its bytes have changed {where} (sha256)")
    return problems + in_samples


def _sample_problems(data: mmap.mmap, check: ShardCheck) -> Iterator[str]:
    """Walk the tar along the rows of the index; the first problem of each sample."""
    assert check.rows is not None
    expected_offset: int | None = BLOCK
    for number, row in enumerate(check.rows):
        sample = f"sample {row.key} (row {check.first_row + number})"
        end = row.offset + row.length + len(padding(row.length)) + 2 * BLOCK
        if end > len(data) and len(data) < check.shard.bytes:
            yield f"{sample} and all after it, {len(check.rows) - number} samples, are cut off"
            return
        if end > len(data):
            yield f"{sample}: the index places it beyond the end of the shard"
            expected_offset = None
            continue
        if expected_offset is not None and row.offset != expected_offset:
            yield f"{sample}: the index places it at byte {row.offset}, the sample before it ends for {expected_offset}"
        problem = _sample_problem(data, row, check.decode)
        if problem:
            yield f"{sample}: {problem}"
        expected_offset = end + BLOCK
    if expected_offset is not None and expected_offset - BLOCK + len(END) < check.shard.bytes:
        yield "there are bytes after the last sample that the index does not list"


def _sample_problem(data: mmap.mmap, row: Row, decode: bool) -> str | None:
    if row.offset < BLOCK or row.length <= 0:
        return f"the index has the impossible offset {row.offset} or length {row.length}"
    try:
        member = tarfile.TarInfo.frombuf(data[row.offset - BLOCK : row.offset], "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        return f"no sound tar header before its image ({error})"
    key, _, _ = member.name.partition(".")
    if key != row.key:
        return f"the tar holds {member.name} there"
    if member.size != row.length:
        return f"its image has {member.size} bytes in the tar, {row.length} in the index"
    image = data[row.offset : row.offset + row.length]
    if zlib.crc32(image) != row.crc32:
        return "the bytes of its image are not those of the index (crc32)"
    start = row.offset + row.length + len(padding(row.length))
    label = data[start : start + 2 * BLOCK]
    if label != label_member(row.key, row.label):
        text = label[BLOCK:].rstrip(b"\0").decode("ascii", "replace")
        return f"its label member reads {text!r}, the index says {row.label}"
    if decode:
        try:
            decoded(image)
        except UnreadableImageError as error:
            return f"its image cannot be decoded: {error}"
    return None
