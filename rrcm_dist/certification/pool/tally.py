"""What a run adds up to while it goes on: images decided, accuracy so far, draws per second. Made into snapshots."""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rrcm_dist.certification.pool.queue import WorkQueue
from rrcm_dist.certification.statistics.certificates import ImageCounts, certify_counts
from rrcm_dist.certification.watching.snapshot import LevelState, Snapshot

RATE_SECONDS = 10.0
"""Draws per second are those of so many last seconds."""


class LevelTally:
    """One noise level: what its decided images came to."""

    def __init__(self, sigma: float, images: int, radii: Sequence[float], alpha: float, draws_each: int) -> None:
        """`draws_each` is what an image costs in mode fixed."""
        self.sigma, self.failed = sigma, 0
        self._images, self._alpha, self._draws_each = images, alpha, draws_each
        self._radii: NDArray[np.float64] = np.array(sorted(radii), dtype=np.float64)
        self._certified = np.zeros(len(self._radii), dtype=np.int64)
        self._decided = self._draws = 0

    def add(self, images: list[ImageCounts]) -> None:
        """Images that need no further draw."""
        for certificate in certify_counts(images, self._alpha):
            self._decided += 1
            self._draws += certificate.n0 + certificate.n
            if certificate.correct:
                self._certified += certificate.radius >= self._radii

    def state(self) -> LevelState:
        """As watchers see it."""
        return LevelState(
            sigma=self.sigma, images=self._images, decided=self._decided, failed=self.failed,
            radii=tuple(self._radii.tolist()), certified=tuple(self._certified.tolist()), draws=self._draws,
            draws_saved=self._decided * self._draws_each - self._draws,
        )  # fmt: skip


@dataclass
class _Moment:
    seconds: float
    worker: str
    draws: int


class Tally:
    """The whole run since this start."""

    def __init__(self, levels: Sequence[LevelTally]) -> None:
        self.levels = {level.sigma: level for level in levels}
        self._start = time.monotonic()
        self._draws = 0
        self._recent: deque[_Moment] = deque()

    def counted(self, worker: str, draws: int) -> None:
        """A worker returned so many draws."""
        self._draws += draws
        self._recent.append(_Moment(time.monotonic(), worker, draws))

    def snapshot(self, queue: WorkQueue, workers: Iterable[str]) -> Snapshot:
        """Where the run stands now, with the living `workers`."""
        now = time.monotonic()
        while self._recent and self._recent[0].seconds < now - RATE_SECONDS:
            self._recent.popleft()
        window = max(min(RATE_SECONDS, now - self._start), 1e-3)
        rates = dict.fromkeys(workers, 0.0)
        for moment in self._recent:
            if moment.worker in rates:
                rates[moment.worker] += moment.draws / window
        return Snapshot(
            seconds=now - self._start, draws=self._draws, draws_left=queue.draws_left,
            draws_per_second=sum(moment.draws for moment in self._recent) / window, worker_draws_per_second=rates,
            blocks_queued=queue.queued, blocks_in_flight=queue.in_flight, blocks_retried=queue.retried,
            blocks_audited=queue.audited, levels=tuple(level.state() for level in self.levels.values()),
        )  # fmt: skip
