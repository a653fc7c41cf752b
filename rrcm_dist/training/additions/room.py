"""Whether what an addition holds fits in a rank's memory, asked before anything is trained."""

import platform
from contextlib import suppress
from pathlib import Path

import torch

from rrcm_dist.distributed.collectives import first_problem, gather_objects
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import InvalidInput
from rrcm_dist.files import gigabytes

MEMORY = Path("/proc/meminfo")
LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Of the container or job, where there is one."""


def require_memory(what: str, held_bytes: int, passing_bytes: int, world: World, mend: str) -> None:
    """Raise `InvalidInput` on every rank where one's memory has no room for `what`; every rank must call it.

    Args:
        what: what is held, for the message.
        held_bytes: of each rank, for the whole run.
        passing_bytes: of each rank, now and then.
        world: this rank's place; ranks of one host without GPUs share its memory.
        mend: what to do about it.
    """
    ranks_here = 1
    if world.device.type == "cpu":
        ranks_here = gather_objects(platform.node()).count(platform.node())
    available = available_bytes(world.device)
    problem = ""
    if available is not None and ranks_here * (held_bytes + passing_bytes) > available:
        place = "the GPU" if world.device.type == "cuda" else f"this machine, which {ranks_here} ranks share,"
        problem = (
            f"{what} takes {gigabytes(held_bytes)} per rank and {gigabytes(passing_bytes)} more while it is searched, "
            f"and {place} has {gigabytes(available)} free: {mend}"
        )
    if told := first_problem(problem):
        raise InvalidInput(told)


def available_bytes(device: torch.device) -> int | None:
    """Memory that is free on a GPU, or on this machine for all its ranks together; None where that is not told."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = []
    with suppress(OSError):
        lines = MEMORY.read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):  # 'max' where there is no limit
        found.append(int(LIMIT.read_text()))
    return min(found, default=None)
