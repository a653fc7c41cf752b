"""A run on this machine, as other shells see it: a lock in its folder tells that it lives, as long as it does."""

import fcntl
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cluster.record.history import History
from rrcm_dist.errors import InvalidInput
from rrcm_dist.files import is_locked

LOCK = "local.lock"


class LocalPlace:
    """A launcher on this machine, or on one that shares its file system."""

    def __init__(self, run: Path, submission: dict[str, Any]) -> None:
        self._lock, self._name = run / "cluster" / LOCK, str(submission["job"])

    def state(self) -> tuple[str, str]:
        """RUNNING or ENDED; the machine is part of the job's name."""
        return ("RUNNING" if self.is_live() else "ENDED"), ""

    def is_live(self) -> bool:
        """Whether its launcher holds the lock."""
        return is_locked(self._lock)

    def cancel(self) -> None:
        """As Ctrl-C in its shell."""
        host, _, process = self._name.rpartition(":")
        if host != socket.gethostname():
            raise InvalidInput(f"the run is on {host}: cancel it there")
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(int(process), signal.SIGTERM)

    def log(self) -> bytes:
        """There is none: what its launcher prints, rank 0 printed."""
        return b""


@contextmanager
def lock_run(run: Path) -> Iterator[str]:
    """Within, the run folder is this process's; yields the name of the job that it is.

    Raises `InvalidInput` where another process of this machine, or of its file system, has it.
    """
    with open(History(run).folder / LOCK, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInput(f"another run has just begun in {run}: give another output") from None
        yield f"{socket.gethostname()}:{os.getpid()}"
