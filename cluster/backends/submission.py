"""What every submission begins and ends with: the run folder is asked for, the recipe kept, the job recorded."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.jobs import Job
from cluster.record.history import History
from cluster.record.lock import submission_lock
from cluster.watching.places import place_of
from rrcm_dist.config.parts import Part
from rrcm_dist.config.yaml_text import read_yaml
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.files import write_text


@dataclass(frozen=True)
class Submission:
    """A submission that is being made."""

    job: Job
    run: Path
    """The run folder, absolute."""
    folder: Path
    """Its own, which holds the recipe."""

    @property
    def recipe(self) -> Path:
        """The recipe as it is submitted: changed later, the run's own stays."""
        return self.folder / "recipe.yaml"

    def record(self, number: str, site: Part, **more: str) -> None:
        """Write down that the job was taken, under this number; see `History.add_job`."""
        values = site.model_dump(mode="json")
        History(self.run).add_job(number, self.job.kind, self.recipe, sys.argv[1:], values, **more)


@contextmanager
def submission_of(job: Job, anywhere: bool = False) -> Iterator[Submission]:
    """Within, nobody else submits this run folder. Raises `InvalidInput` if it is of another kind, or a job's of ours.

    anywhere: go on where the scheduler of the job before cannot be asked from here.
    """
    run = job.folder.absolute()
    with submission_lock(run):
        refuse_other_kind(run, job.kind)
        with suppress(RunFailure) if anywhere else nullcontext():
            _check_unowned(run)
        opened = Submission(job, run, History(run).next_submission())
        write_text(opened.recipe, job.recipe_text())
        yield opened


def refuse_other_kind(run: Path, kind: str) -> None:
    """Raise `InvalidInput` where the folder holds what another kind of submission made, finished or not."""
    recipe = run / "recipe.yaml"
    held = [submission["kind"] for submission in History(run).jobs()[-1:]]
    if not held and recipe.exists():
        held = [(read_yaml(recipe.read_text(encoding="utf-8"), str(recipe)) or {}).get("kind", kind)]
    if held and held[0] != kind:
        raise InvalidInput(f"{run} is the folder of a submission of kind {held[0]}, not {kind}: give another output")


def _check_unowned(run: Path) -> None:
    """Raise `InvalidInput` if a job of ours, queued or running, owns the run folder."""
    for submission in History(run).jobs()[-1:]:
        place = place_of(run, submission)
        if place.is_live():
            raise InvalidInput(
                f"{run} belongs to job {submission['job']}, which is {place.state()[0]}: give another output, or end "
                f"that one first (`python -m cluster cancel {run}`)"
            )
