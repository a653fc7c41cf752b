"""Stops a run on every rank at once: at numbers that are not finite, at a rank's problem, at a loss spike, and where it
is asked for.

Every step each rank puts three flags and its loss on the table; all see the same table and draw the same conclusion,
so that none is left waiting for another. On CUDA the table is read one step late, from pinned memory, so that no step
waits for the device.
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
from torch import Tensor

from rrcm_dist.distributed.collectives import first_problem, gather_objects, gather_over_ranks
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import RunFailure
from rrcm_dist.files import write_json
from rrcm_dist.training.watching.spikes import SpikeWatch

SHOWN_KEYS = 6
SECONDS_BEFORE_SECOND_INTERRUPT = 2.0
"""Launchers and terminals may both send one Ctrl-C; only a later one means: at once."""


@dataclass(frozen=True)
class _Watched:
    step: int
    keys: Sequence[str]
    problem: str
    table: Tensor
    """float32 (ranks, 4) on the host: flags not finite, asked to stop, has a problem; loss. Complete once `ready`."""
    ready: torch.cuda.Event | None


class Guard:
    """Watches every step of a run."""

    def __init__(self, world: World, folder: Path, spikes: SpikeWatch | None = None) -> None:
        self._world, self._folder, self._spikes = world, folder, spikes
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
            numbers: scalars on the device that must be finite: the rank's loss, and then others (gradient norm).
            keys: of the rank's samples.
            problem: what is wrong on this rank, or ''.

        Raises `RunFailure` on every rank, naming step, ranks and sample keys where a number is not finite, telling a
        rank's problem, or as `SpikeWatch` does.
        """
        device = self._world.device
        values = torch.stack([number.detach().float() for number in numbers])
        not_finite = (~values.isfinite().all()).float()
        said = [torch.full((), float(flag), device=device) for flag in (self._asked_at is not None, bool(problem))]
        table = gather_over_ranks(torch.stack([not_finite, *said, values[0]])[None])
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
        not_finite, asked, has_problem, losses = zip(*watched.table.tolist(), strict=True)
        if any(not_finite):
            raise self._not_finite(watched, [rank for rank, flag in enumerate(not_finite) if flag])
        if any(has_problem):
            raise RunFailure(first_problem(watched.problem))
        if self._spikes is not None:
            self._spikes.look(watched.step, sum(losses) / len(losses), watched.keys)
        return any(asked)

    def _not_finite(self, watched: _Watched, bad_ranks: list[int]) -> RunFailure:
        all_keys = gather_objects(list(watched.keys))
        bad_keys = {f"rank {rank}": all_keys[rank] for rank in bad_ranks}
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
