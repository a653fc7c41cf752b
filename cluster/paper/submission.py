"""Starting what is missing of a paper: queued all at once where stages can wait for each other, else one by one."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from cluster.backends import Backend
from cluster.backends.local import LocalBackend
from cluster.backends.submission import refuse_other_kind
from cluster.jobs import Job
from cluster.paper.plan import KIND, Paper, Stage
from cluster.paper.state import StageState, stage_states
from cluster.record.history import History
from cluster.record.lock import submission_lock
from cluster.watching.places import place_of
from rrcm_dist.config.parts import Part
from rrcm_dist.errors import InvalidInput, RRCMError, RunFailure

END_SECONDS, POLL_SECONDS = 120.0, 0.5
"""For so long a job that is cancelled may keep a checkpoint and end."""


@runtime_checkable
class Queue(Protocol):
    """A backend whose jobs can wait for each other."""

    @property
    def site(self) -> Part:
        """Its site file."""

    def check(self, job: Job, waits: bool = False) -> None:
        """Raise `InvalidInput` for what cannot run there, as far as that is known; `waits`: for other jobs."""

    def queue(self, job: Job, after: Sequence[str] = ()) -> str:
        """Queue the job, to start once those of the numbers `after` have ended well; returns its number."""


def submit_paper(paper: Paper, backend: Backend) -> int:
    """Start what is missing; returns what the door exits with. Raises `InvalidInput` before anything is started."""
    if not isinstance(backend, Queue | LocalBackend):
        raise InvalidInput("the stages of a paper wait for each other, which jobs of this backend cannot: use slurm")
    with submission_lock(paper.folder.absolute()):
        refuse_other_kind(paper.folder.absolute(), KIND)
        missing = paper.missing()
        if not missing:
            raise InvalidInput(f"{paper.folder} is finished: nothing is left to do")
        if not isinstance(backend, LocalBackend):
            for stage in missing:
                backend.check(stage.job, waits=bool(stage.after))
        paper.keep_recipes()
        site = backend.site.model_dump(mode="json")
        paper.history.add_job("", KIND, paper.folder.absolute() / "recipe.yaml", sys.argv[1:], site)
        if not isinstance(backend, LocalBackend):
            _queue(paper, missing, backend)
            return 0
    return _run(paper, missing, backend)


def describe_paper(paper: Paper, backend: Backend) -> str:
    """What `submit_paper` would do, stage by stage."""
    missing = {stage.name for stage in paper.missing()}
    parts = []
    for number, stage in enumerate(paper.stages, start=1):
        head = f"# ---- stage {number} of {len(paper.stages)}: {stage.name}"
        after = f", after {' and '.join(stage.after)}" if stage.after else ""
        if stage.name in missing:
            parts.append(f"{head}{after}\n{backend.describe(stage.job)}")
        else:
            parts.append(f"{head}: finished, nothing to do")
    return "\n".join(parts)


def cancel_paper(paper: Paper) -> str:
    """End every stage that is queued or running; returns what was done, for people."""
    states = stage_states(paper)
    live = [state for state in states if state.live]
    if not live:
        unknown = {state.reason for state in states if not (state.finished or state.state)} - {""}
        raise InvalidInput("; ".join([f"no stage of {paper.folder} is queued or running", *sorted(unknown)]))
    for state in reversed(live):  # so that none starts because the one before it has ended
        _cancel(state.stage)
    names = ", ".join(f"{state.stage.name} (job {state.job})" for state in live)
    return f"cancelled: {names}; `python -m cluster resubmit {paper.folder}` goes on where they were"


def _run(paper: Paper, missing: Sequence[Stage], backend: LocalBackend) -> int:
    """One after the other, until one ends badly."""
    for stage in missing:
        place = paper.stages.index(stage) + 1
        print(f"[{place}/{len(paper.stages)}] {stage.name}", flush=True)
        if code := backend.submit(stage.job):
            print(f"stage {stage.name} ended with exit code {code}; the same command goes on with it", flush=True)
            return code
    return 0


def _queue(paper: Paper, missing: Sequence[Stage], backend: Queue) -> None:
    states = {state.stage.name: state for state in stage_states(paper)}
    numbers: dict[str, str] = {}
    queued: dict[str, Stage] = {}
    try:
        for stage in missing:
            if _stays(states[stage.name], queued):
                numbers[stage.name] = states[stage.name].job
                print(f"{stage.name}: job {numbers[stage.name]}, {states[stage.name].state}, stays as it is")
                continue
            if states[stage.name].live:
                _take_out(states[stage.name])
            numbers[stage.name] = backend.queue(stage.job, [numbers[name] for name in stage.after if name in numbers])
            queued[stage.name] = stage
            print(f"{stage.name}: job {numbers[stage.name]} is queued")
    except RRCMError:
        for stage in queued.values():  # all or nothing
            _cancel(stage)
        if queued:
            print(f"taken out again: {', '.join(queued)}")
        raise
    print(f"`python -m cluster status {paper.folder}`")


def _stays(state: StageState, queued: dict[str, Stage]) -> bool:
    """Whether its job of before is of the same recipe, and still has what it waits for."""
    if not state.live or state.blocked_by or any(name in queued for name in state.stage.after):
        return False
    kept = Path(_last_submission(state.stage)["recipe"])
    return kept.is_file() and kept.read_text(encoding="utf-8") == state.stage.job.recipe_text()


def _take_out(state: StageState) -> None:
    """End its job, and return when its run folder is free. Raises `RunFailure` where that does not come."""
    _cancel(state.stage)
    place = place_of(state.stage.job.folder, _last_submission(state.stage))
    deadline = time.monotonic() + END_SECONDS
    while place.is_live():
        if time.monotonic() > deadline:
            raise RunFailure(
                f"job {state.job} of stage {state.stage.name} is cancelled, and has not ended within {END_SECONDS:.0f} "
                "s: submit again once it has"
            )
        time.sleep(POLL_SECONDS)


def _cancel(stage: Stage) -> None:
    place_of(stage.job.folder, _last_submission(stage)).cancel()


def _last_submission(stage: Stage) -> dict[str, Any]:
    return History(stage.job.folder).jobs()[-1]
