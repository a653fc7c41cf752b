"""One training at a time in a run folder: two would write the same checkpoints and metrics."""

import fcntl
import logging
import time
from pathlib import Path
from typing import IO

from rrcm_dist.errors import InvalidInput
from rrcm_dist.files import disk_failure

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 120.0
"""For so long a run that was ended may take to be gone; an NFS server forgets a dead machine's locks within it, too."""
POLL_SECONDS = 0.5
NAME = ".lock"


class RunLock:
    """What the rank that writes a run folder holds while it trains.

    The lock is the operating system's own and ends with the process; processes that it forks do not have it. Where the
    file system has no locks (some Lustre mounts), nothing is held.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._file: IO[bytes] | None = None

    def take(self, patience: float | None = None) -> None:
        """Hold it. Raises `InvalidInput` where another process does, and does not let go within `patience` seconds;
        None takes `PATIENCE_SECONDS`."""
        patience = PATIENCE_SECONDS if patience is None else patience
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "ab")  # noqa: SIM115 (held until `release`)
        except OSError as error:
            raise disk_failure(error, self._path) from None
        deadline, told = time.monotonic() + patience, False
        while not self._taken(self._file):
            if time.monotonic() > deadline:
                self.release()
                raise InvalidInput(
                    f"another process is training in {self._path.parent}: let it end, stop it, or give another output"
                )
            if not told:
                log.info("another process is training in %s: waiting %.0f s for its end", self._path.parent, patience)
                told = True
            time.sleep(POLL_SECONDS)

    def release(self) -> None:
        """Let go, if it is held."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @staticmethod
    def _taken(file: IO[bytes]) -> bool:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # no locks on this file system
            return True
        return True
