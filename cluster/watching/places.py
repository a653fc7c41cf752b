"""What the place where a job was submitted tells of it. One interface, a class with each scheduler."""

from pathlib import Path
from typing import Any, Protocol


class Place(Protocol):
    """One submission, as its scheduler knows it."""

    def state(self) -> tuple[str, str]:
        """(state in the scheduler's word, why if that needs saying); ('', why) where it knows nothing of the job.

        Raises `RunFailure` where it does not answer.
        """

    def is_live(self) -> bool:
        """Whether the job runs or will run. Raises `RunFailure` where that cannot be known."""

    def cancel(self) -> None:
        """End the job. Raises `InvalidInput` where the scheduler cannot be reached from here."""

    def log(self) -> bytes:
        """What the job itself has printed so far, its ranks apart; empty where there is nothing."""


def place_of(run: Path, submission: dict[str, Any]) -> Place:
    """The place of a submission (a line of jobs.jsonl) of a run folder."""
    if submission["site"]["backend"] == "slurm":
        from cluster.slurm.place import SlurmPlace

        return SlurmPlace(run, submission)
    if submission["site"]["backend"] == "ray":
        from cluster.on_ray.place import RayPlace

        return RayPlace(run, submission)
    from cluster.this_machine import LocalPlace

    return LocalPlace(run, submission)
