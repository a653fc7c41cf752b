"""What a loading process holds in memory, as the kernel accounts for it."""

import multiprocessing
from pathlib import Path
from typing import NamedTuple

from benchmarks.loader_recipe import loader_recipe
from rrcm_dist.data.index import DatasetIndex
from rrcm_dist.data.loaders import pretraining_loader

MIB = 1024**2


class WorkerMemory(NamedTuple):
    """The most that was seen of one worker, in bytes."""

    private: int
    """Pages that no other process has: what another worker costs."""
    proportional: int
    """Private pages, and each shared one divided by the number of processes that share it."""


def worker_memory(index: DatasetIndex, batch: int, batches: int, workers: int = 1) -> WorkerMemory:
    """The largest of several workers, looked at whenever a batch of theirs arrives."""
    config, order = loader_recipe(index, batch, workers)
    most = WorkerMemory(0, 0)
    for _ in pretraining_loader(index, order, config, 0, 1, 0, batches):
        for process in multiprocessing.active_children():
            most = WorkerMemory(*map(max, most, _memory_of(process.pid)))
    return most


def _memory_of(pid: int | None) -> WorkerMemory:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:  # it has just ended
        return WorkerMemory(0, 0)
    kilobytes = {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}
    return WorkerMemory(
        private=1024 * (kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]), proportional=1024 * kilobytes["Pss"]
    )
