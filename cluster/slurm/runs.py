"""From what a user names, a run folder or a job, to the run and its jobs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.record.history import History
from cluster.slurm.batch import COMMENT
from cluster.slurm.tools import LIVE_STATES, accounted_state, ask, queue_state, require_slurm
from rrcm_dist.errors import InvalidInput


@dataclass(frozen=True)
class SubmittedRun:
    """A run that was submitted to Slurm at least once."""

    folder: Path
    submission: dict[str, Any]
    """The last one: its line of jobs.jsonl."""

    @property
    def job(self) -> str:
        """Number of the last job."""
        return self.submission["job"]

    @property
    def history(self) -> History:
        """Of all jobs."""
        return History(self.folder)


def find_run(name: str) -> SubmittedRun:
    """The run of a run folder or of a job number. Raises `InvalidInput` where it is none of ours."""
    folder = _folder_of_job(name) if name.isdecimal() and not Path(name).exists() else Path(name)
    if not folder.is_dir():
        raise InvalidInput(f"there is no run folder {folder}: name the `output` of a submitted run, or a job number")
    submissions = History(folder).jobs()
    if not submissions:
        raise InvalidInput(f"{folder} was never submitted to Slurm: it has no cluster/jobs.jsonl")
    return SubmittedRun(folder, submissions[-1])


def slurm_state(job: str) -> tuple[str, str]:
    """(state, reason) by the queue, or by the accounting once that has forgotten it; ('', '') where neither knows."""
    return queue_state(job) or (accounted_state(job) or "", "")


def is_live(job: str) -> bool:
    """Whether the job runs or will run."""
    return slurm_state(job)[0] in LIVE_STATES


def _folder_of_job(job: str) -> Path:
    require_slurm()
    comment = ask("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%k")
    comment = comment or ask("sacct", "-n", "-X", "-P", "-o", "Comment", "-j", job)
    if not comment:
        raise InvalidInput(f"Slurm knows no job {job}, or has forgotten it: name the run folder")
    if not comment.startswith(COMMENT):
        raise InvalidInput(f"job {job} is not a run of ours: its comment does not begin with {COMMENT}")
    return Path(comment.splitlines()[0].removeprefix(COMMENT))
