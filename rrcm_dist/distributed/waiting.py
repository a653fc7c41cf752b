"""How long steps wait for what other ranks send, added up without making a step wait for the count."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Waiting:
    """Seconds for which a rank's work stood still at marked places.

    On CPU the host waits, and its clock is read. On CUDA the host runs ahead and it is the stream that waits: an event
    before and one after the place tell for how long, and are read once the device has passed them.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._events: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextmanager
    def timed(self, device: torch.device) -> Iterator[None]:
        """Count the time that `device` stands still within: put around a handle's wait(), and nothing else."""
        if device.type != "cuda":
            start = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - start
            return
        while self._events and self._events[0][1].query():  # asks, does not wait
            self._add(*self._events.popleft())
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        yield
        after.record()
        self._events.append((before, after))

    def take(self) -> float:
        """Seconds since the last call; on CUDA the host waits until the device has passed the last marked place."""
        while self._events:
            before, after = self._events.popleft()
            after.synchronize()
            self._add(before, after)
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _add(self, before: torch.cuda.Event, after: torch.cuda.Event) -> None:
        self._seconds += before.elapsed_time(after) / 1000


GATHERS = Waiting()
"""For the gathers of keys in pre-training: the one place where a step waits in its middle for other ranks' work."""
