"""How fast a run goes: work returned per second, by worker and in all."""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from rrcm_dist.certification.pool.queue import WorkQueue
from rrcm_dist.certification.pool.work import Pulse

RATE_SECONDS = 10.0
"""Rates are those of so many last seconds."""


@dataclass
class _Moment:
    seconds: float
    worker: str
    cost: int


class Pace:
    """The whole run since this start."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._done = 0
        self._recent: deque[_Moment] = deque()

    def returned(self, worker: str, cost: int) -> None:
        """A worker returned so much work."""
        self._done += cost
        self._recent.append(_Moment(time.monotonic(), worker, cost))

    def pulse(self, queue: WorkQueue, workers: Iterable[str]) -> Pulse:
        """How the run goes now, with the living `workers`."""
        now = time.monotonic()
        while self._recent and self._recent[0].seconds < now - RATE_SECONDS:
            self._recent.popleft()
        window = max(min(RATE_SECONDS, now - self._start), 1e-3)
        rates = dict.fromkeys(workers, 0.0)
        for moment in self._recent:
            if moment.worker in rates:
                rates[moment.worker] += moment.cost / window
        return Pulse(
            seconds=now - self._start, done=self._done, left=queue.left,
            per_second=sum(moment.cost for moment in self._recent) / window, worker_per_second=rates,
            queued=queue.queued, in_flight=queue.in_flight, retried=queue.retried, audited=queue.audited,
        )  # fmt: skip
