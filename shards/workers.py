"""Tasks spread over processes that end with their parent, however it ends."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait as wait_for_end
from typing import TypeVar

from rrcm_dist.errors import RunFailure

Task = TypeVar("Task")
Result = TypeVar("Result")


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(function: Callable[[Task], Result], tasks: Iterable[Task], jobs: int) -> Iterator[Result]:
    """`function` of every task, as they are done; with one job in this very process.

    `function` must be importable, tasks and results picklable. Raises what `function` raises, and `RunFailure` where a
    process was killed.
    """
    if jobs == 1:
        yield from map(function, tasks)
        return
    waiting = iter(tasks)
    # Spawned, not forked: the parent may hold threads and locks of libraries.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker) as pool:
        # Only a few tasks ahead, so that their contents are not all in flight and a failure ends it soon.
        running: set[Future[Result]] = {pool.submit(function, task) for task in islice(waiting, jobs + 1)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(function, task) for task in islice(waiting, len(done))}
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise RunFailure(
                "a worker process was killed (out of memory?): run the same command again with fewer --jobs, "
                "it goes on from what is finished"
            ) from error
        finally:
            for future in running:
                future.cancel()


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for_end([sentinel])
    os._exit(1)
