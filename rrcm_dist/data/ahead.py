"""The next item of an iterator, made in a thread while the one before it is in use."""

import signal
import threading
from collections.abc import Iterator
from queue import Queue
from typing import Generic, TypeVar

Item = TypeVar("Item")


class MadeAhead(Generic[Item]):
    """Iterates over `source` one item ahead: never more than one is ready beside the one handed out last.

    What `source` raises is raised in place of the item that it would have made.
    """

    def __init__(self, source: Iterator[Item]) -> None:
        self._source = source
        self._wanted = threading.Semaphore(1)
        self._ready: Queue[tuple[Item | None, BaseException | None]] = Queue()
        self._closed = False
        self._thread = threading.Thread(target=self._make, name="made-ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        while True:
            item, error = self._ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            self._wanted.release()
            yield item  # type: ignore[misc]
            del item  # else it would be kept until the next one is there

    def close(self, timeout_seconds: float) -> bool:
        """Make no further item; whether the one under way was done within the time."""
        self._closed = True
        self._wanted.release()
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _make(self) -> None:
        # Signals are for the main thread: taken here, they would not interrupt what it waits for.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while self._wanted.acquire() and not self._closed:
            try:
                self._ready.put((next(self._source), None))
            except BaseException as error:  # whatever it is, it belongs to the one who iterates
                self._ready.put((None, error))
                return
