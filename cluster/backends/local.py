"""This machine: ranks are processes that meet at a loopback port."""

import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cluster.backends.submission import submission_of
from cluster.jobs import Job
from cluster.jobs.single import SingleJob
from cluster.jobs.training import TrainingJob
from cluster.rank_processes import RankFailure, RankProcess, run_together
from cluster.site import LocalSite
from cluster.this_machine import lock_run
from rrcm_dist.errors import INTERRUPTED, InvalidInput

LOOPBACK = "127.0.0.1"


class LocalBackend:
    """Runs a job here and waits for its end."""

    def __init__(self, site: LocalSite) -> None:
        self.site = site

    def submit(self, job: Job) -> int:
        """Run to the end; returns 0, or the exit code of the first rank that ended badly, and shows its log's end."""
        ranks = self._count(job)
        logs = _log_folder(job.folder)
        with self._occupied(job):
            failures = run_together(self._ranks(job, ranks, logs), self.site.stop_seconds)
        if not failures:
            if isinstance(job, SingleJob):
                job.set_finished()
            return 0
        if any(failure.code != INTERRUPTED for failure in failures):
            _tell(failures, ranks)
        return failures[0].exit_code

    @contextmanager
    def _occupied(self, job: Job) -> Iterator[None]:
        """Within, the run folder is this process's. Raises `InvalidInput` where another live run owns it."""
        with ExitStack() as held:
            with submission_of(job, anywhere=True) as submission:
                submission.record(held.enter_context(lock_run(submission.run)), self.site)
            yield

    def describe(self, job: Job) -> str:
        """The command, and how many processes execute it."""
        ranks = self._count(job)
        command = shlex.join(job.command(self.site.device))
        who = f"{ranks} ranks" if ranks > 1 else "1 rank"
        return f"{who} on this machine, each: {command}"

    def _count(self, job: Job) -> int:
        if not isinstance(job, TrainingJob):
            return 1
        ranks = self.site.ranks or _visible_gpus(self.site.device) or 1
        job.check_ranks(ranks)
        return ranks

    def _ranks(self, job: Job, ranks: int, logs: Path) -> list[RankProcess]:
        threads = self.site.threads or max(1, _cores() // ranks)
        shared = {
            **os.environ,
            "WORLD_SIZE": str(ranks),
            "MASTER_ADDR": LOOPBACK,
            "MASTER_PORT": str(_free_port()),
            "OMP_NUM_THREADS": str(threads),
            "PYTHONUNBUFFERED": "1",
        }
        return [
            RankProcess(
                rank,
                job.command(self.site.device),
                {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                logs / f"rank-{rank}.log",
            )
            for rank in range(ranks)
        ]


def _cores() -> int:
    """That this process may use; a batch system may have given it a share of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _visible_gpus(device: str) -> int:
    if device == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


def _log_folder(run: Path) -> Path:
    logs = run / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InvalidInput(f"output {run} cannot be a run folder: a file is in its place") from None
    except PermissionError:
        raise InvalidInput(f"output {run} cannot be written to: choose another output") from None
    return logs


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def _tell(failures: list[RankFailure], ranks: int) -> None:
    """Say which ranks ended badly and show what they printed last; the same words once."""
    shown: set[tuple[str, ...]] = set()
    for failure in failures:
        print(f"rank {failure.rank} of {ranks} {failure.how}; its log is {failure.log}", file=sys.stderr)
        if failure.last_lines not in shown:
            print("".join(f"  | {line}\n" for line in failure.last_lines), end="", file=sys.stderr)
        shown.add(failure.last_lines)
