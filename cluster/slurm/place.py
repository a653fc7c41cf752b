"""A job as Slurm knows it."""

from pathlib import Path
from typing import Any

from cluster.slurm.batch import COMMENT
from cluster.slurm.tools import LIVE_STATES, accounted_state, ask, queue_state, queue_states, require_slurm, tell
from rrcm_dist.errors import InvalidInput

HOPELESS = {"DependencyNeverSatisfied": "the job that it waits for failed: it will never start; cancel it"}
"""Reasons of a pending job that no time will mend."""


class SlurmPlace:
    """By the queue, or by the accounting once that has forgotten the job."""

    def __init__(self, run: Path, submission: dict[str, Any]) -> None:
        self._run, self._job = run, str(submission["job"])
        self._workers: str | None = submission.get("workers")
        """Array of the worker jobs of a certification."""

    def state(self) -> tuple[str, str]:
        """Slurm's word, and while the job is pending the reason; of a certification how many workers there are."""
        state, reason = queue_state(self._job) or (accounted_state(self._job) or "", "")
        if not state:
            return "", "Slurm has forgotten the job, or there is none here"
        pending = HOPELESS.get(reason, reason) if state == "PENDING" else ""
        return state, ", ".join(filter(None, [pending, self._worker_states() if state in LIVE_STATES else ""]))

    def is_live(self) -> bool:
        """As Slurm has it."""
        return self.state()[0] in LIVE_STATES

    def cancel(self) -> None:
        """By scancel."""
        require_slurm()
        if self._workers:
            ask("scancel", self._workers)  # which may all have ended, and be forgotten
        tell("scancel", self._job)

    def log(self) -> bytes:
        """Of the batch step, in all its lives."""
        return b"".join(log.read_bytes() for log in self._run.glob(f"cluster/submission-*/{self._job}_*_log.out"))

    def _worker_states(self) -> str:
        if not self._workers:
            return ""
        tasks = queue_states(self._workers)
        pending = [reason for state, reason in tasks if state == "PENDING"]
        running = sum(state == "RUNNING" for state, _ in tasks)
        why = f" ({', '.join(sorted(set(pending)))})" if pending else ""
        return f"{running} worker{'' if running == 1 else 's'} running, {len(pending)} pending{why}"


def folder_of_job(job: str) -> Path:
    """Run folder of a job of ours, by its number. Raises `InvalidInput` for any other."""
    require_slurm()
    comment = ask("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%k")
    comment = comment or ask("sacct", "-n", "-X", "-P", "-o", "Comment", "-j", job)
    if not comment:
        raise InvalidInput(f"Slurm knows no job {job}, or has forgotten it: name the run folder")
    if not comment.startswith(COMMENT):
        raise InvalidInput(f"job {job} is not a run of ours: its comment does not begin with {COMMENT}")
    return Path(comment.splitlines()[0].removeprefix(COMMENT))
