"""Where the stages of a paper stand, and which of them can never start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.paper.plan import Paper, Stage
from cluster.record.history import History
from cluster.watching.places import place_of
from cluster.watching.status import progress_line
from rrcm_dist.errors import RRCMError

WAITING = "PENDING"
"""What schedulers say of a job that has not begun."""


@dataclass(frozen=True)
class StageState:
    """One stage, as its scheduler and its folder tell."""

    stage: Stage
    finished: bool
    job: str
    """Its last one; empty where it was never submitted."""
    state: str
    """The scheduler's word, or why there is none; empty where it was never submitted."""
    reason: str
    live: bool
    """Queued or running."""
    blocked_by: str | None
    """The stage that failed, or was never started, for which this one would wait for ever."""

    @property
    def stuck(self) -> bool:
        """Whether it is queued, and will never start."""
        return self.state == WAITING and self.live and self.blocked_by is not None


def stage_states(paper: Paper) -> list[StageState]:
    """In the order of the stages."""
    states: dict[str, StageState] = {}
    for stage in paper.stages:
        states[stage.name] = _state(stage, [states[name] for name in stage.after])
    return list(states.values())


def _state(stage: Stage, before: Sequence[StageState]) -> StageState:
    blocked = next((o.blocked_by or o.stage.name for o in before if o.blocked_by or not (o.finished or o.live)), None)
    finished, submissions = stage.job.is_finished(), History(stage.job.folder).jobs()
    if not submissions:
        return StageState(stage, finished, "", "", "", False, blocked)
    place = place_of(stage.job.folder, submissions[-1])
    try:
        (state, reason), live = place.state(), place.is_live()
    except RRCMError as error:
        state, reason, live = "", str(error), False
    if state == WAITING:
        blocked = blocked or _superseded(submissions[-1], before)
    return StageState(stage, finished, str(submissions[-1]["job"]), state, reason, live, blocked)


def _superseded(submission: Mapping[str, Any], before: Sequence[StageState]) -> str | None:
    """The stage for whose job a submission waits, where it has another by now: the one waited for did not end well."""
    for job in submission.get("after", "").split():
        for other in before:
            if job != other.job and job in {line["job"] for line in History(other.stage.job.folder).jobs()}:
                return other.stage.name
    return None


def describe_paper_status(paper: Paper) -> str:
    """A line a stage, and the way out where some can never start."""
    states = stage_states(paper)
    width = max(len(state.stage.name) for state in states)
    lines = [f"{paper.folder}: {sum(state.finished for state in states)} of {len(states)} stages finished"]
    lines += [f"  {state.stage.name.ljust(width)}  {_words(state)}" for state in states]
    stuck = [state.stage.name for state in states if state.stuck]
    if stuck:
        lines += [
            f"{' and '.join(stuck)} will never start, and Slurm leaves them waiting for ever.",
            f"`python -m cluster resubmit {paper.folder}` queues what failed once more, and them anew;",
            f"`python -m cluster cancel {paper.folder}` takes them out of the queue.",
        ]
    elif any(not state.finished and not state.live for state in states):
        lines.append(f"`python -m cluster resubmit {paper.folder}` starts what is missing")
    return "\n".join(lines)


def _words(state: StageState) -> str:
    if state.finished and not state.live:
        return "finished"
    if state.stuck:
        return f"job {state.job}, {state.state}: will never start, as {state.blocked_by} did not end well"
    if state.live:
        run = state.stage.job.folder
        reason = f": {state.reason}" if state.reason else ""
        progress = progress_line(run, History(run).lives())
        return ", ".join(filter(None, [f"job {state.job}, {state.state}{reason}", progress]))
    if not state.job:
        return "not started" + (f": waits for {state.blocked_by}" if state.blocked_by else "")
    return f"job {state.job}, {_end(state)}"


def _end(state: StageState) -> str:
    """How the last job of a stage ended that is not finished."""
    lives = History(state.stage.job.folder).lives()
    cause = f"{lives[-1].cause}{f' ({lives[-1].detail})' if lives[-1].detail else ''}" if lives else ""
    return ": ".join(filter(None, [state.state or state.reason, cause]))
