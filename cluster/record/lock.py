"""One submission of a run folder at a time: whoever comes second finds what the first has recorded."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rrcm_dist.errors import InvalidInput
from rrcm_dist.files import disk_failure

WAIT_SECONDS = 120.0
"""Longer than a scheduler takes to accept a job."""
POLL_SECONDS = 0.1


@contextmanager
def submission_lock(run: Path) -> Iterator[None]:
    """Hold what every submission of the run folder holds from its checks to its line in jobs.jsonl.

    The lock is the file system's own and ends with its process. Where the file system has none (some Lustre mounts),
    nothing is held. Raises `InvalidInput` where another submission does not let go within `WAIT_SECONDS`.
    """
    file = run / "cluster" / "submit.lock"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        opened = open(file, "ab")  # noqa: SIM115
    except OSError as error:
        raise disk_failure(error, file) from None
    with opened:
        deadline = time.monotonic() + WAIT_SECONDS
        while not _taken(opened.fileno()):
            if time.monotonic() > deadline:
                raise InvalidInput(
                    f"{run} is being submitted by another process, which holds {file} for {WAIT_SECONDS:.0f} s "
                    "already: end that one first, or give another output"
                )
            time.sleep(POLL_SECONDS)
        yield


def _taken(descriptor: int) -> bool:
    """Whether the lock is ours now, or there is no such thing here."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system
        return True
    return True
