"""Stops a run for every rank at once: at a non-finite loss, and where somebody asks for it (Ctrl-C, SIGTERM)."""

import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist
from torch import Tensor

from rrcm_dist.distributed.collectives import gather_over_ranks, ranks
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import RunFailure
from rrcm_dist.files import write_json

SHOWN_KEYS = 6


class Guard:
    """Watches every step. On CUDA it looks one step late, so that it never waits for the device."""

    def __init__(self, world: World, folder: Path) -> None:
        self._world, self._folder = world, folder
        self._delay = 0 if world.device.type == "cpu" else 1
        self._watched: deque[tuple[int, Sequence[str], Tensor]] = deque()
        self._asked = False

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Within, Ctrl-C and SIGTERM ask for a stop after the step; a second one stops at once."""
        before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def watch(self, step: int, loss: Tensor, keys: Sequence[str]) -> bool:
        """Look at a step's loss before its update; returns whether any rank was asked to stop.

        Raises `RunFailure` on every rank, naming step, ranks and sample keys, where a loss is not finite.
        """
        flags = torch.stack([~loss.detach().isfinite(), torch.tensor(self._asked, device=loss.device)]).float()
        self._watched.append((step, keys, gather_over_ranks(flags[None])))
        if len(self._watched) <= self._delay:
            return False
        return self._look(*self._watched.popleft())

    def settle(self) -> None:
        """Look at what was not looked at yet; called before anything is kept."""
        while self._watched:
            self._look(*self._watched.popleft())

    def _look(self, step: int, keys: Sequence[str], flags: Tensor) -> bool:
        not_finite, asked = flags.cpu().bool().unbind(dim=1)
        bad_ranks = not_finite.nonzero().flatten().tolist()
        if bad_ranks:
            raise self._not_finite(step, bad_ranks, keys)
        return bool(asked.any())

    def _not_finite(self, step: int, bad_ranks: list[int], keys: Sequence[str]) -> RunFailure:
        all_keys: list[Sequence[str]] = [list(keys)] * ranks()
        if ranks() > 1:
            dist.all_gather_object(all_keys, list(keys))
        bad_keys = {f"rank {rank}": list(all_keys[rank]) for rank in bad_ranks}
        file = self._folder / f"not-finite-step-{step}.json"
        if self._world.is_main:
            write_json(file, {"step": step, "keys": bad_keys})
        first = next(iter(bad_keys.values()))
        shown = ", ".join(first[:SHOWN_KEYS]) + (
            f" and {len(first) - SHOWN_KEYS} more" if len(first) > SHOWN_KEYS else ""
        )
        return RunFailure(
            f"the loss of step {step} is not finite on rank {', '.join(map(str, bad_ranks))} (samples {shown}; all in "
            f"{file}); nothing of it was kept: the last checkpoint is good. A lower optimizer.lr or "
            "training.precision=fp32 may help"
        )

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
