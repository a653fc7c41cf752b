"""A crew: whoever works. The driver hands it batches and asks what came back; this process alone is the least one."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rrcm_dist.certification.pool.work import Answer, Pixels, Unit, Worker


@dataclass(frozen=True)
class Return:
    """A batch that came back."""

    ticket: int
    """What `submit` called it."""
    worker: str
    host: str
    answers: Sequence[Answer] | None
    """One a unit, in order; None where the worker is gone."""
    begun: bool = True
    """Where the worker is gone: whether it may have been at this batch, so that a unit of it may be to blame."""


class Crew(Protocol):
    """Workers that come and go."""

    def free(self) -> Sequence[str]:
        """Names of workers that can take one more batch now."""

    def workers(self) -> Sequence[str]:
        """Names of the workers that live and are ready."""

    def submit(self, worker: str, units: Sequence[Unit], pixels: Pixels) -> int:
        """Give `worker`, one of `free()`, a batch; the ticket that it comes back under."""

    def collect(self) -> list[Return]:
        """Batches that came back, waiting a moment if there are none.

        Raises `RunFailure` where no worker can ever be had, as when the classifier cannot be loaded.
        """

    def close(self) -> None:
        """Let the workers go."""


class OwnProcess:
    """The crew of one: this process works, while the driver waits."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._name = socket.gethostname()
        self._batch: tuple[Sequence[Unit], Pixels] | None = None
        self._ticket = 0

    def free(self) -> Sequence[str]:
        """This process, unless a batch waits."""
        return () if self._batch else (self._name,)

    def workers(self) -> Sequence[str]:
        """This process."""
        return (self._name,)

    def submit(self, worker: str, units: Sequence[Unit], pixels: Pixels) -> int:
        """Keep the batch; `collect` does it."""
        self._batch = (units, pixels)
        self._ticket += 1
        return self._ticket

    def collect(self) -> list[Return]:
        """Do the batch."""
        if self._batch is None:
            return []
        units, pixels = self._batch
        self._batch = None
        return [Return(self._ticket, self._name, self._name, self._worker.work(units, pixels))]

    def close(self) -> None:
        """Nothing to let go."""
