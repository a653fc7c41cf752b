"""Stops a run on every rank at once: at numbers that are not finite, at a rank's problem, and where it is asked for.

Every step each rank puts three flags on the table; all see the same table and draw the same conclusion, so that none is
left waiting for another. On CUDA the table is read one step late, from pinned memory, so that no step waits for the
device.
"""

import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist
from torch import Tensor

from rrcm_dist.distributed.collectives import first_problem, gather_over_ranks, ranks
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import RunFailure
from rrcm_dist.files import write_json

SHOWN_KEYS = 6
SECONDS_BEFORE_SECOND_INTERRUPT = 2.0
"""Launchers and terminals may both send one Ctrl-C; only a later one means: at once."""


@dataclass(frozen=True)
class _Watched:
    step: int
    keys: Sequence[str]
    problem: str
    table: Tensor
    """bool (ranks, 3) on the host: not finite, asked to stop, has a problem; complete once `ready`."""
    ready: torch.cuda.Event | None


class Guard:
    """Watches every step of a run."""

    def __init__(self, world: World, folder: Path) -> None:
        self._world, self._folder = world, folder
        self._delay = 0 if world.device.type == "cpu" else 1
        self._watched: deque[_Watched] = deque()
        self._asked_at: float | None = None

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Within, Ctrl-C and SIGTERM ask for a stop after the step; a second Ctrl-C, later, stops at once."""
        before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def watch(self, step: int, numbers: Sequence[Tensor], keys: Sequence[str], problem: str = "") -> bool:
        """Look at a step; returns whether any rank was asked to stop. Every rank must call it.

        Args:
            step: which step.
            numbers: scalars on the device that must be finite: loss, gradient norm.
            keys: of the rank's samples.
            problem: what is wrong on this rank, or ''.

        Raises `RunFailure` on every rank, naming step, ranks and sample keys where a number is not finite, or telling
        a rank's problem.
        """
        device = self._world.device
        finite = torch.stack([number.detach().float() for number in numbers]).isfinite().all()
        said = [torch.full((), flag, device=device) for flag in (self._asked_at is not None, bool(problem))]
        table = gather_over_ranks(torch.stack([~finite, *said])[None].byte())
        self._watched.append(_Watched(step, keys, problem, *_to_host(table)))
        return self._look() if len(self._watched) > self._delay else False

    def settle(self) -> None:
        """Look at what was not looked at yet; called before anything is kept."""
        while self._watched:
            self._look()

    def _look(self) -> bool:
        watched = self._watched.popleft()
        if watched.ready is not None:
            watched.ready.synchronize()
        not_finite, asked, has_problem = watched.table.bool().unbind(dim=1)
        if not_finite.any():
            raise self._not_finite(watched, not_finite.nonzero().flatten().tolist())
        if has_problem.any():
            raise RunFailure(first_problem(watched.problem))
        return bool(asked.any())

    def _not_finite(self, watched: _Watched, bad_ranks: list[int]) -> RunFailure:
        all_keys: list[Sequence[str]] = [list(watched.keys)] * ranks()
        if ranks() > 1:
            dist.all_gather_object(all_keys, list(watched.keys))
        bad_keys = {f"rank {rank}": list(all_keys[rank]) for rank in bad_ranks}
        file = self._folder / f"not-finite-step-{watched.step}.json"
        if self._world.is_main:
            write_json(file, {"step": watched.step, "keys": bad_keys})
        first = next(iter(bad_keys.values()))
        more = f" and {len(first) - SHOWN_KEYS} more" if len(first) > SHOWN_KEYS else ""
        return RunFailure(
            f"the loss or its gradient at step {watched.step} is not finite on rank {', '.join(map(str, bad_ranks))} "
            f"(samples {', '.join(first[:SHOWN_KEYS])}{more}; all in {file}); nothing of it was kept, and "
            "checkpoints from before are good. A lower optimizer.lr or training.precision=fp32 may help"
        )

    def _ask(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
        elif number == signal.SIGINT and now - self._asked_at > SECONDS_BEFORE_SECOND_INTERRUPT:
            raise KeyboardInterrupt


def _to_host(table: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """A host tensor that will hold `table`, and the event after which it does; None where it does already."""
    if table.device.type == "cpu":
        return table, None
    host = torch.empty(table.shape, dtype=table.dtype, pin_memory=True)
    host.copy_(table, non_blocking=True)
    ready = torch.cuda.Event()
    ready.record()
    return host, ready
