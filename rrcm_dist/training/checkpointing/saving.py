"""Saves checkpoints beside training: the ranks stand still while tensors are gathered, not while they are written."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rrcm_dist.config.keys import TrainingRecipe
from rrcm_dist.distributed.collectives import first_problem
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import RRCMError, RunFailure
from rrcm_dist.files import disk_failure, gigabytes
from rrcm_dist.training.checkpointing.checkpoints import Contents, Progress, write_checkpoint
from rrcm_dist.training.checkpointing.mirror import Mirror

log = logging.getLogger(__name__)


class CheckpointWriter:
    """Writes one checkpoint at a time, in a thread of the main rank that training does not wait for.

    Another thread copies them to the mirror, one after the other: however slow that is, no rank waits for it until the
    run ends.
    """

    def __init__(self, folder: Path, recipe: TrainingRecipe, world: World, mirror: Mirror | None = None) -> None:
        """`folder`: the run's `checkpoints/`; `mirror`: where each is copied to besides."""
        self._folder, self._recipe, self._world, self._mirror = folder, recipe, world, mirror
        self._thread: threading.Thread | None = None
        self._copies = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint-copies")
        self._problem = ""

    def save(self, gather: Callable[[], Contents], progress: Progress) -> None:
        """Gather what is to be kept and begin to write it; every rank must call it.

        Waits for the checkpoint before. Raises `RunFailure` on every rank where that one could not be written.
        """
        self.settle()
        start = time.monotonic()
        contents = gather()
        stood_still = time.monotonic() - start
        if self._world.is_main:
            self._thread = threading.Thread(target=self._write, args=(contents, progress, stood_still))
            self._thread.start()

    def problem(self) -> str:
        """Why the last checkpoint could not be written, as soon as the main rank knows; else empty."""
        return self._problem

    def finish(self) -> None:
        """Let what is being written and copied be finished; nothing can be saved afterwards."""
        self._join()
        self._copies.shutdown()

    def settle(self) -> None:
        """Wait for what is being written; every rank must call it, and raises `RunFailure` where it failed."""
        self._join()
        if problem := first_problem(self._problem):
            raise RunFailure(problem)

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, contents: Contents, progress: Progress, stood_still: float) -> None:
        start = time.monotonic()
        try:
            checkpoint = write_checkpoint(self._folder, contents, self._recipe, progress)
        except Exception as error:  # of whatever kind: a thread that ends by itself would pass for one that has written
            self._problem = f"{_in_words(error, self._folder)}; the checkpoints before it are untouched"
            return
        size_bytes = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
        log.info(
            "checkpoint %s: %s, training stood still for %.2f s, written beside it in %.1f s",
            checkpoint.name, gigabytes(size_bytes), stood_still, time.monotonic() - start,
        )  # fmt: skip
        if self._mirror is not None:
            self._copies.submit(self._mirror.keep, checkpoint)


def _in_words(error: Exception, folder: Path) -> str:
    if isinstance(error, OSError):
        return str(disk_failure(error, folder))
    if isinstance(error, RRCMError):
        return str(error)
    log.error("writing a checkpoint into %s failed", folder, exc_info=error)
    return f"a checkpoint was not written ({type(error).__name__}: {error})"
