"""The World: how many ranks there are, which one this is, and its device. Environment variables are read here only."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from rrcm_dist.errors import InvalidInput, RunFailure

PATIENCE = timedelta(minutes=30)
"""How long ranks wait for one that is silent: longer than it waits for a store, so that its reason is heard first."""


@dataclass(frozen=True)
class World:
    """One process's place among all that train together."""

    rank: int
    size: int
    local_rank: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this rank writes what is written once."""
        return self.rank == 0


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """'auto' (CUDA where there is one), 'cpu' or 'cuda' → the device of this rank."""
    if name not in ("auto", "cpu", "cuda"):
        raise InvalidInput(f"device {name!r} is not known: choose auto, cpu or cuda")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InvalidInput("device cuda was asked for, but torch sees no GPU here: choose cpu, or see `rrcm doctor`")
    if local_rank >= torch.cuda.device_count():
        raise InvalidInput(
            f"local rank {local_rank} has no GPU of its own: {torch.cuda.device_count()} are visible; "
            "start one process per GPU"
        )
    return torch.device("cuda", local_rank)


@contextmanager
def join_world(device: str = "auto") -> Iterator[World]:
    """Join the process group that torchrun (or a launcher that sets the same variables) describes, or be alone.

    Reads RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. A group that stands already is joined; a group of
    one is left standing, because DeepSpeed keeps hold of it and the process may train again.
    """
    rank, size = _environment_number("RANK", 0), _environment_number("WORLD_SIZE", 1)
    local_rank = _environment_number("LOCAL_RANK", rank)
    own_device = choose_device(device, local_rank)
    if own_device.type == "cuda":
        torch.cuda.set_device(own_device)
    stands_already = dist.is_initialized()
    if not stands_already:
        _start_group(rank, size, own_device)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), local_rank, own_device)
    finally:
        if not stands_already and size > 1:
            dist.destroy_process_group()


def _start_group(rank: int, size: int, device: torch.device) -> None:
    backend = "nccl" if device.type == "cuda" else "gloo"
    if size == 1:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        return
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise InvalidInput(f"WORLD_SIZE is {size}, but {' and '.join(missing)} not set: start the ranks with torchrun")
    try:
        dist.init_process_group(backend, rank=rank, world_size=size, timeout=PATIENCE)
    except (dist.DistError, RuntimeError) as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise RunFailure(f"rank {rank} of {size} could not meet the others at {address}: {error}") from error


def _environment_number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return otherwise
    if not text.isdecimal():
        raise InvalidInput(f"the environment variable {name} is {text!r}; it must be a whole number")
    return int(text)
