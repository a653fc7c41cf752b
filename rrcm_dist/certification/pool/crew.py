"""A crew: whoever counts. The driver hands it batches and asks what came back; this process alone is the least one."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rrcm_dist.certification.blocks import Block
from rrcm_dist.certification.workers.worker import Counted, CountingWorker

Pixels = Mapping[int, NDArray[np.uint8]]
"""Images by sample id, uint8 (C, H, W)."""


@dataclass(frozen=True)
class Return:
    """A batch that came back."""

    ticket: int
    """What `submit` called it."""
    worker: str
    host: str
    counted: Sequence[Counted] | None
    """One a block, in order; None where the worker is gone."""
    begun: bool = True
    """Where the worker is gone: whether it may have been counting this batch, so that a block of it may be to blame."""


class Crew(Protocol):
    """Workers that come and go."""

    def free(self) -> Sequence[str]:
        """Names of workers that can take one more batch now."""

    def workers(self) -> Sequence[str]:
        """Names of the workers that live and are ready."""

    def submit(self, worker: str, blocks: Sequence[Block], pixels: Pixels) -> int:
        """Give `worker`, one of `free()`, a batch; the ticket that it comes back under."""

    def collect(self) -> list[Return]:
        """Batches that came back, waiting a moment if there are none.

        Raises `RunFailure` where no worker can ever be had, as when the classifier cannot be loaded.
        """

    def close(self) -> None:
        """Let the workers go."""


class OwnProcess:
    """The crew of one: this process counts, while the driver waits."""

    def __init__(self, worker: CountingWorker) -> None:
        self._worker = worker
        self._name = socket.gethostname()
        self._batch: tuple[Sequence[Block], Pixels] | None = None
        self._ticket = 0

    def free(self) -> Sequence[str]:
        """This process, unless a batch waits."""
        return () if self._batch else (self._name,)

    def workers(self) -> Sequence[str]:
        """This process."""
        return (self._name,)

    def submit(self, worker: str, blocks: Sequence[Block], pixels: Pixels) -> int:
        """Keep the batch; `collect` counts it."""
        self._batch = (blocks, pixels)
        self._ticket += 1
        return self._ticket

    def collect(self) -> list[Return]:
        """Count the batch."""
        if self._batch is None:
            return []
        blocks, pixels = self._batch
        self._batch = None
        return [Return(self._ticket, self._name, self._name, self._worker.count(blocks, pixels))]

    def close(self) -> None:
        """Nothing to let go."""
