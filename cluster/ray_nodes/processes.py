"""What becomes of the processes that a process starts, on Linux: deaf to what is not for them, adopted, ended."""

import ctypes
import signal
import time
from contextlib import suppress

import psutil

from cluster.die_with_parent import die_with_parent

TERMINATE_SECONDS = 1.5
"""So long may a process that is asked to end take, before it is killed."""
_PR_SET_CHILD_SUBREAPER = 36


def die_with_parent_ignoring_usr2() -> None:
    """As `die_with_parent`; besides, USR2, which a batch step hears, may reach its children and means nothing there."""
    die_with_parent()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def adopt_orphans() -> None:
    """From now on all that this process starts, and what that starts, are its descendants until they end."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_descendants(first: str) -> None:
    """End all that this process has started: those whose name begins with `first` are asked to, all others are killed.

    Returns when none is left.
    """
    asked = [process for process in _descendants() if _name(process).startswith(first)]
    for process in asked:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(asked, timeout=TERMINATE_SECONDS)
    while left := _descendants():
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=TERMINATE_SECONDS)
        time.sleep(0.02)


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _name(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return process.name()
    return ""
