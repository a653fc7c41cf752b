"""The batch step of a single command: it runs once to its end; ended before, it begins anew in its next life."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from cluster.jobs.single import SingleJob
from cluster.record.history import Cause, History, Life
from cluster.record.policy import AS_WANTED, goes_on
from cluster.site import SlurmSite
from cluster.slurm.batch_step import POLL_SECONDS, BatchStep
from rrcm_dist.errors import RunFailure

STOP_SECONDS = 10.0


@dataclass
class SingleStep:
    """A submitted command; submitit calls it in the batch step of every life."""

    job: SingleJob
    site: SlurmSite

    def __call__(self) -> str:
        """Live one life; returns its cause in words. Raises `RunFailure` where the command fails for good."""
        step, history = BatchStep(), History(self.job.folder)
        life = history.begin(step.job, 0)
        cause, detail = self._live(step, life)
        history.end(life, cause, 0, detail)
        again, why_not = goes_on(history.lives(), self.site.crashes_allowed)
        # Slurm has requeued what it ends, unless for its time limit.
        if again and (not step.terminated or cause is Cause.TIME_LIMIT):
            step.requeue(f"python -m cluster resubmit {self.job.folder.parent}")
        if not again and cause not in AS_WANTED:
            raise RunFailure("; ".join(filter(None, [f"{cause}: {detail}", why_not])))
        return str(cause)

    def _live(self, step: BatchStep, life: Life) -> tuple[Cause, str]:
        log = self.job.folder / "logs" / f"life-{life.number}" / "rank-0.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **self.site.environment, "PYTHONUNBUFFERED": "1"}
        with open(log, "wb") as file:
            process = subprocess.Popen(
                self.job.command(self.site.device), env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        while process.poll() is None and not step.terminated and not step.asked:
            time.sleep(POLL_SECONDS)
        if process.poll() is None:
            _stop(process)
            return step.why(self.site.seconds_before_limit)
        if process.returncode == 0:
            self.job.set_finished()
            return Cause.DONE, ""
        said = f"{_last_line(log)} (exit code {process.returncode}; see {log})"
        # A command that names what is wrong would name it again: only one that was killed is tried again.
        return (Cause.CRASHED if process.returncode < 0 else Cause.REFUSED), said


def _stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
