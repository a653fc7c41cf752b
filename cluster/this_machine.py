"""A run on this machine, as other shells see it: a lock in its folder tells that it lives, as long as it does."""

import fcntl
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from cluster.jobs import Job
from cluster.record.history import History
from cluster.record.lock import submission_lock
from cluster.site import LocalSite
from cluster.watching.places import check_unowned
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.files import write_text

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
        try:
            with open(self._lock) as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

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
def occupied(job: Job, site: LocalSite) -> Iterator[None]:
    """Within, the run folder is this process's. Raises `InvalidInput` where another live run owns it."""
    run = job.folder.absolute()
    history = History(run)
    with ExitStack() as held:
        with submission_lock(run):
            with suppress(RunFailure):  # of a scheduler that cannot be asked from here nothing is known
                check_unowned(run)
            lock = held.enter_context(open(history.folder / LOCK, "a"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InvalidInput(f"another run has just begun in {run}: give another output") from None
            recipe = history.next_submission() / "recipe.yaml"
            write_text(recipe, job.recipe_text())
            name = f"{socket.gethostname()}:{os.getpid()}"
            history.add_job(name, job.kind, recipe, sys.argv[1:], site.model_dump(mode="json"))
        yield
