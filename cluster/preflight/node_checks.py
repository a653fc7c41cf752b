"""What is looked at on each node, without torch: cores, shared memory, output, free space, shards, versions."""

import hashlib
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path

import numpy as np

import cluster
import rrcm_dist
from cluster.preflight.reports import Finding
from cluster.record.progress import newest_checkpoint
from rrcm_dist.config.estimate import checkpoint_bytes, loader_queue_bytes
from rrcm_dist.config.keys import TrainingRecipe
from rrcm_dist.config.parts import DataConfig
from rrcm_dist.config.schema import FinetuneConfig
from rrcm_dist.data.checked_reading import checked_reader
from rrcm_dist.data.index import load_index
from rrcm_dist.data.stores import StoreSettings
from rrcm_dist.errors import RRCMError
from rrcm_dist.files import gigabytes

PACKAGES = ("rrcm-dist", "torch", "deepspeed", "ray", "timm", "nvidia-nccl-cu12", "nvidia-nccl-cu13")
DRIVER = Path("/proc/driver/nvidia/version")
SHARED_MEMORY = Path("/dev/shm")
STORE_SECONDS = 60.0
"""How long a node's look at its shards waits for a store."""


def cores(asked: int) -> Finding:
    """Those that this process may use, against those asked for."""
    usable = len(os.sched_getaffinity(0))
    if usable >= asked:
        return Finding("cores", str(usable))
    mend = "Slurm counts more cores than there are, or the step got fewer: lower cpus_per_rank"
    return Finding("cores", str(usable), f"{usable} cores where {asked} were asked for", mend, warning=True)


def shared_memory(recipe: TrainingRecipe, ranks_here: int, ranks: int) -> Finding:
    """Room in /dev/shm for what the decoding processes of this node's ranks, of `ranks` in all, keep ready."""
    if not SHARED_MEMORY.is_dir():
        return Finding("shared memory", "none")
    needed = ranks_here * loader_queue_bytes(recipe, ranks)
    free = shutil.disk_usage(SHARED_MEMORY).free
    found = f"{gigabytes(free)} free"
    if free >= needed:
        return Finding("shared memory", found)
    problem = f"{SHARED_MEMORY} has {gigabytes(free)} free, and the loaders' queues may take {gigabytes(needed)}"
    return Finding("shared memory", found, problem, "enlarge it on the node, or lower data.workers or data.prefetch")


def output(token_file: Path, token: str, node: str) -> Finding:
    """Whether this node sees what the first one wrote, and can write beside it."""
    mend = "mount the output's file system on the node, writable, or give an output that all nodes share"
    try:
        seen = token_file.read_text()
    except OSError as error:
        problem = f"{token_file} is not seen ({error.strerror})"
        return Finding("output", "unseen", problem, mend, shared=True)
    if seen != token:
        problem = f"{token_file} is another file than the first node's"
        return Finding("output", "another", problem, mend, shared=True)
    try:
        (token_file.parent / node).write_text(token)
    except OSError as error:
        problem = f"{token_file.parent} cannot be written to ({error.strerror})"
        return Finding("output", "not writable", problem, mend, shared=True)
    return Finding("output", "writable")


def free_space(run: Path, recipe: TrainingRecipe) -> Finding:
    """Room for the checkpoints that will be kept beyond those there are, and the one that is being written."""
    there = len(list((run / "checkpoints").glob("step-*")))
    more = max(1, recipe.training.keep_checkpoints + 1 - there)
    needed, free = more * checkpoint_bytes(recipe), shutil.disk_usage(run).free
    found = f"{gigabytes(free)} free"
    if free >= needed:
        return Finding("free space", found)
    problem = f"{run} has {gigabytes(free)} free, and {more} more checkpoints take {gigabytes(needed)}"
    mend = "make room, lower training.keep_checkpoints, or give another output"
    return Finding("free space", found, problem, mend, shared=True)


def shards(recipe: TrainingRecipe) -> Finding:
    """Whether index and shards of `data.train` and `data.held_out` are there, and some samples can be read."""
    samples = 0
    for key, folder in (("data.train", recipe.data.train), ("data.held_out", recipe.data.held_out)):
        if folder is None:
            continue
        try:
            samples += _read_samples(folder, recipe.data)
        except (RRCMError, OSError) as error:
            mend = "mount or copy the shards on the node, or mend the path or the store in the recipe"
            return Finding("shards", "unreadable", f"{key}: {error}", mend, shared=True)
    return Finding("shards", f"{samples:,} samples")


def _read_samples(place: str, data: DataConfig) -> int:
    """Read as many samples as there are streams, evenly spaced over the shards; returns how many there are in all."""
    store = StoreSettings(data.cache, data.cache_gb, min(data.store_patience, STORE_SECONDS))
    index = load_index(place, store)
    reader = checked_reader(index)
    rows = np.unique(np.linspace(0, len(index) - 1, data.streams, dtype=np.int64)).tolist()
    reader.expect(rows)
    for row in rows:
        if reader.read(row) is None:
            shard = f"{place}/{index.shards[index.shard_of[row]].name}"
            raise OSError(f"sample {index.keys[row]} of {shard} is damaged: `python -m shards verify {place}`")
    return len(index)


def starting_point(run: Path, recipe: TrainingRecipe) -> Finding | None:
    """What a fine-tuning that has no checkpoint of its own starts from; None where nothing is needed."""
    if not isinstance(recipe, FinetuneConfig) or recipe.start_from is None or newest_checkpoint(run):
        return None
    if Path(recipe.start_from).exists():
        return Finding("start", "seen")
    mend = "mount it on the node, or mend the path in the recipe"
    return Finding("start", "unseen", f"start_from: {recipe.start_from} does not exist", mend, shared=True)


def versions() -> list[Finding]:
    """Of what must be the same on all nodes: one finding each, for the judge to compare."""
    found = {"python": platform.python_version(), "code": _own_code(), "driver": _driver()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "none"
    return [Finding(f"version of {name}", version) for name, version in found.items()]


def _own_code() -> str:
    """A digest: checkouts of the same version may differ."""
    digest = hashlib.sha256()
    for package in (rrcm_dist, cluster):
        root = Path(str(package.__file__)).parent
        for file in sorted(root.rglob("*.py")):
            digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.hexdigest()[:8]


def _driver() -> str:
    """Of the GPUs, as the kernel tells it."""
    try:
        words = DRIVER.read_text().splitlines()[0].split()
    except (OSError, IndexError):
        return "none"
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")
