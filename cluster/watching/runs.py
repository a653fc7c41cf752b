"""From what a user names, a run folder or a job, to the run and its jobs."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.record.history import History
from cluster.watching.places import Place, place_of
from rrcm_dist.errors import InvalidInput

RAY_JOBS = ("rrcm-", "raysubmit_")
"""What submission ids of Ray jobs begin with: ours, and those that Ray makes."""


@dataclass(frozen=True)
class SubmittedRun:
    """A run that was submitted at least once."""

    folder: Path
    """Absolute."""
    submission: dict[str, Any]
    """The last one: its line of jobs.jsonl."""

    @property
    def job(self) -> str:
        """What its scheduler calls the last job."""
        return self.submission["job"]

    @property
    def place(self) -> Place:
        """Where the last job is."""
        return place_of(self.folder, self.submission)

    @property
    def history(self) -> History:
        """Of all jobs."""
        return History(self.folder)


def find_run(name: str) -> SubmittedRun:
    """The run of a run folder or of a job. Raises `InvalidInput` where it is none of ours."""
    folder = Path(name) if Path(name).exists() else _folder_of_job(name)
    if not folder.is_dir():
        raise InvalidInput(f"there is no run folder {folder}: name the `output` of a submitted run, or a job")
    submissions = History(folder).jobs()
    if not submissions:
        raise InvalidInput(f"{folder} was never submitted: it has no cluster/jobs.jsonl")
    newest = submissions[-1]
    if not Path(name).exists() and name not in (newest["job"], newest.get("workers")):
        raise InvalidInput(f"job {name} was followed by job {newest['job']} in {folder}: name that, or the folder")
    return SubmittedRun(folder.absolute(), newest)


def enter_working_folder(submission: dict[str, Any]) -> None:
    """Change to the folder that a run was submitted from: the paths of its recipe may be relative.

    Raises `InvalidInput` where it is not there.
    """
    try:
        os.chdir(submission["working_folder"])
    except OSError as error:
        raise InvalidInput(
            f"it was submitted from {submission['working_folder']}, which cannot be entered here ({error.strerror}): "
            "make it anew, or submit again from elsewhere with the same output"
        ) from None


def _folder_of_job(name: str) -> Path:
    if name.isdecimal():
        from cluster.slurm.place import folder_of_job

        return folder_of_job(name)
    if name.startswith(RAY_JOBS):
        from cluster.on_ray.place import folder_of_job as folder_of_ray_job

        return folder_of_ray_job(name)
    return Path(name)
