"""Samples per second out of a store and off a disk, read ahead beside one by one, and from the cache, in one run.

One process reads what is as long as ImageNet's JPEGs in the order in which a worker of four does (parts of 32 samples,
told of the next ones), and checks it; nothing is decoded. The store is a web server of the same folder on this machine,
in a process of its own, that waits before every answer. Reading one by one cannot be faster than one sample per wait.

    OMP_NUM_THREADS=1 python -m benchmarks store_reading --samples 2000 --latency-ms 20
"""

import argparse
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.machine import markdown_table, report
from benchmarks.range_server import range_server
from rrcm_dist.data.index import DatasetIndex, Shard, load_index, write_index
from rrcm_dist.data.order import SampleOrder
from rrcm_dist.data.parts import PartRequest, StepRequests, told_ahead
from rrcm_dist.data.reading import SampleReader
from rrcm_dist.data.stores import StoreSettings
from rrcm_dist.files import sha256

MEAN_BYTES = 110_000
SAMPLES_PER_SHARD = 500
BATCH, STREAMS, WORKERS, ROUNDS = 256, 8, 4, 3


LOCAL = "local folder, in the system's memory"


class Measured(NamedTuple):
    seconds: float
    """Per sample."""
    cpu_seconds: float
    """Per sample, of the reading process."""


def main() -> None:
    """Measure all ways in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000, help="samples per measurement [default: 2000]")
    parser.add_argument("--latency-ms", type=float, default=20.0, help="wait before an answer [default: 20]")
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shards, cache = Path(folder) / "shards", Path(folder) / "cache"
        _write_shards(shards, WORKERS * arguments.samples)
        with range_server(shards) as server:
            local, uncached = load_index(shards), load_index(server.url, StoreSettings(str(cache), 0))
            cached = replace(uncached, store=StoreSettings(str(cache), 50))
            server.behave(delay=arguments.latency_ms / 1e3)
            ways: dict[str, Callable[[], Measured]] = {
                LOCAL: lambda: _read(local, _requests(local, arguments.samples)),
                "local disk, one by one": lambda: _read_cold(local, arguments.samples, ahead=False),
                "local disk, read ahead": lambda: _read_cold(local, arguments.samples, ahead=True),
                "store, one by one": lambda: _read(uncached, _requests(uncached, arguments.samples // 10), ahead=False),
                "store, read ahead": lambda: _read(uncached, _requests(uncached, arguments.samples)),
                "store, second time, from the cache": lambda: _read(cached, _requests(cached, arguments.samples)),
            }
            _read(cached, _requests(cached, arguments.samples))
            measured = _best(ways)
    title = (
        f"Reading from a store that waits {arguments.latency_ms:g} ms, {arguments.samples} samples of "
        f"{MEAN_BYTES // 1000} kB, one process, best of {ROUNDS} rounds taken in turn"
    )
    report("store_reading", title, _table(measured, arguments.latency_ms / 1e3), arguments.record)


def _table(measured: dict[str, Measured], latency: float) -> str:
    local = measured[LOCAL].seconds
    rows = [
        {
            "way": way,
            "samples/s": f"{1 / seconds:.0f}",
            "MB/s": f"{MEAN_BYTES / 1e6 / seconds:.0f}",
            "CPU ms/sample": f"{1e3 * cpu:.2f}",
            "memory = 1": f"{local / seconds:.3f}",
            "one sample per wait = 1": f"{latency / seconds:.1f}" if latency else "–",
        }
        for way, (seconds, cpu) in measured.items()
    ]
    return markdown_table(rows)


def _best(ways: dict[str, Callable[[], Measured]]) -> dict[str, Measured]:
    rounds = [{way: run() for way, run in ways.items()} for _ in range(ROUNDS)]
    return {way: Measured(*(min(column) for column in zip(*(r[way] for r in rounds), strict=True))) for way in ways}


def _requests(index: DatasetIndex, samples: int) -> Iterator[PartRequest]:
    """What one of the workers is asked for: every fourth part, with what it is told of the next ones."""
    order = SampleOrder([shard.samples for shard in index.shards], BATCH, STREAMS, seed=0, window=16384)
    asked = told_ahead(StepRequests(order, 0, 1, 0, order.steps_per_epoch), WORKERS)
    read = 0
    for number, request in enumerate(asked):
        if number % WORKERS == 0:
            yield request
            read += len(request.sample_ids)
            if read >= samples:
                return


def _read(index: DatasetIndex, requests: Iterator[PartRequest], ahead: bool = True) -> Measured:
    reader, read = SampleReader(index), 0
    start, cpu = time.perf_counter(), time.process_time()
    for request in requests:
        if ahead:
            reader.expect([*request.sample_ids.tolist(), *request.soon.tolist()])
        for sample_id in request.sample_ids.tolist():
            assert len(reader.read(sample_id)) == index.length[sample_id]
        read += len(request.sample_ids)
    measured = Measured((time.perf_counter() - start) / read, (time.process_time() - cpu) / read)
    reader.close()
    return measured


def _read_cold(index: DatasetIndex, samples: int, ahead: bool) -> Measured:
    """As `_read`, after the system has been asked to forget what it keeps of the shards."""
    for shard in index.shards:
        with open(f"{index.place}/{shard.name}", "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return _read(index, _requests(index, samples), ahead)


def _write_shards(folder: Path, samples: int) -> None:
    """Random bytes in place of images: their lengths are spread as those of ImageNet's, roughly."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    columns: dict[str, list[int] | list[str]] = {"offset": [], "length": [], "label": [], "crc32": [], "key": []}
    shards = []
    for first in range(0, samples, SAMPLES_PER_SHARD):
        path, count, offset = folder / f"shard-{len(shards):06d}.tar", min(SAMPLES_PER_SHARD, samples - first), 0
        with open(path, "wb") as file:
            for number in range(first, first + count):
                data = generator.bytes(int(MEAN_BYTES * generator.gamma(4) / 4) + 1000)
                row = (offset, len(data), 0, zlib.crc32(data), f"{number}")
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)  # type: ignore[arg-type]
                offset += file.write(data)
        shards.append(Shard(path.name, offset, sha256(path), count))
    write_index(folder, ["only"], shards, {name: np.array(values) for name, values in columns.items()}, {})


if __name__ == "__main__":
    main()
