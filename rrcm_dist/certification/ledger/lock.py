"""One writer a ledger: a lock beside it, of which the operating system lets go when its process dies, by any means."""

import fcntl
import time
from pathlib import Path
from typing import IO

from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.files import is_locked

PATIENCE_SECONDS = 0.5
"""A look by `is_written` holds the lock for a moment; a writer that starts just then tries again for so long."""


def lock_ledger(path: Path) -> IO[str]:
    """Hold `path`.lock until closed; its folder is made if need be.

    Raises `RunFailure` where another process holds it, `InvalidInput` where the folder is a file.
    """
    if path.parent.exists() and not path.parent.is_dir():
        raise InvalidInput(f"{path.parent} is a file: give a folder for the ledger")
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(f"{path}.lock", "a")  # noqa: SIM115 (held until the ledger is closed)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                file.close()
                raise _written(path) from error
            time.sleep(0.05)


def refuse_if_written(path: Path) -> None:
    """Raise what `lock_ledger` would raise where another process writes: for asking before anything costly starts."""
    if is_written(path):
        raise _written(path)


def _written(path: Path) -> RunFailure:
    return RunFailure(f"another process is writing {path}: wait for it, or choose another output folder")


def is_written(path: Path) -> bool:
    """Whether a process has the ledger at `path` open for writing."""
    return is_locked(f"{path}.lock")
