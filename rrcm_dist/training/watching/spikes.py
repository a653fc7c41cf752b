"""Loss spikes: losses far above those of the steps before, in units of how much these usually deviate."""

import json
import logging
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrcm_dist.config.parts import TrainingConfig
from rrcm_dist.distributed.collectives import gather_objects
from rrcm_dist.errors import RunFailure
from rrcm_dist.files import disk_failure

log = logging.getLogger(__name__)

FILE = "loss-spikes.jsonl"
"""In the run folder: a line per spike."""
WINDOW = 200
"""Steps that a loss is compared with."""
FEWEST = 50
"""With fewer steps before it, no loss is called a spike."""
MAD_TO_DEVIATION = 1.4826
"""A normal distribution's standard deviation in units of its median absolute deviation."""
HIGH, HIGH_IN_DEVIATIONS = 0.98, 2.054
"""An upper quantile of the losses, and where it lies in a normal distribution."""
LEAST_RELATIVE_DEVIATION = 1e-3
"""Of the median: losses that hardly differ would make a spike of any change."""
SECONDS_BETWEEN_WARNINGS = 60.0


@dataclass(frozen=True)
class Spike:
    """A loss and what it was compared with."""

    loss: float
    median: float
    deviation: float
    """Usual deviation of the losses before."""

    @property
    def deviations(self) -> float:
        """How many deviations the loss lies above the median."""
        return (self.loss - self.median) / self.deviation


class SpikeDetector:
    """Compares each step's loss with the median of the last steps, in units of their usual deviation.

    That is their median absolute deviation or, if larger, how far their upper 2 % lie above the median, both scaled to
    a normal distribution's standard deviation: in pre-training the drawn noise level decides much of the loss, and
    where most levels have much the same, a few others have far more at every such draw. A spike's own loss joins the
    window: neither minds a single value, and a loss that stays high is soon the usual one. A run that is resumed starts
    with an empty window.
    """

    def __init__(self, threshold: float) -> None:
        """`threshold`: deviations above the median from which on a loss is a spike."""
        self._threshold = threshold
        self._losses: deque[float] = deque(maxlen=WINDOW)

    def look(self, loss: float) -> Spike | None:
        """Take the loss of the next step, which is finite; returns what makes it a spike, if it is one."""
        spike = self._spike(loss) if len(self._losses) >= FEWEST else None
        self._losses.append(loss)
        return spike

    def _spike(self, loss: float) -> Spike | None:
        median = statistics.median(self._losses)
        around = MAD_TO_DEVIATION * statistics.median(abs(before - median) for before in self._losses)
        high = sorted(self._losses)[int(HIGH * (len(self._losses) - 1))]
        above = (high - median) / HIGH_IN_DEVIATIONS
        spike = Spike(loss, median, max(around, above, LEAST_RELATIVE_DEVIATION * abs(median), 1e-12))
        return spike if spike.deviations > self._threshold else None


class SpikeWatch:
    """Writes every spike down in the run folder, warns of them now and then, and stops the run where that is wished."""

    def __init__(
        self, training: TrainingConfig, folder: Path, is_main: bool, describe: Callable[[int], dict[str, Any]]
    ) -> None:
        """`describe`: what else the step of that number was like."""
        self._detector = None if training.spike is None else SpikeDetector(training.spike)
        self._stops, self._file, self._is_main, self._describe = (
            training.stop_at_spike,
            folder / FILE,
            is_main,
            describe,
        )
        self._warned_at, self._silent = float("-inf"), 0

    def look(self, step: int, loss: float, keys: Sequence[str]) -> None:
        """Take the mean loss of the next step and the keys of the rank's samples; the loss is the same on every rank.

        Raises `RunFailure` on every rank at a spike that is to stop the run.
        """
        spike = None if self._detector is None else self._detector.look(loss)
        if spike is None:
            return
        keys_of_ranks = gather_objects(list(keys))
        if self._is_main:
            self._write(step, spike, keys_of_ranks)
        told = (
            f"the loss at step {step}, {spike.loss:.4g}, is {spike.deviations:.1f} usual deviations above the median "
            f"{spike.median:.4g} of the steps before it; the samples of every rank are in {self._file}"
        )
        if self._stops:
            raise RunFailure(
                f"{told}. training.stop_at_spike stops the run here: checkpoints from before are good. To go on from "
                "the newest one, set training.stop_at_spike=false; a lower optimizer.lr makes another run"
            )
        self._warn(told)

    def _write(self, step: int, spike: Spike, keys_of_ranks: list[list[str]]) -> None:
        line = {
            "step": step, "loss": spike.loss, "median": spike.median, "deviation": spike.deviation,
            **self._describe(step),
            "keys": {f"rank {rank}": keys for rank, keys in enumerate(keys_of_ranks)},
        }  # fmt: skip
        try:
            with open(self._file, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:  # no reason to end a run
            log.warning("%s", disk_failure(error, self._file))

    def _warn(self, told: str) -> None:
        if not self._is_main:
            return
        now = time.monotonic()
        if now - self._warned_at < SECONDS_BETWEEN_WARNINGS:
            self._silent += 1
            return
        more = f" (and {self._silent} more before it)" if self._silent else ""
        log.warning("%s%s", told, more)
        self._warned_at, self._silent = now, 0
