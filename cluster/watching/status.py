"""Where a submitted run stands, from its scheduler and from its folder."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cluster.record.history import Life
from cluster.record.policy import CHECKPOINT, DRAW, goes_on
from cluster.record.progress import (
    FIRST_STAGE,
    current_stage,
    last_metrics,
    newest_checkpoint,
    samples_per_step,
    total_steps,
)
from cluster.watching.runs import SubmittedRun
from rrcm_dist.config.keys import TRAINED
from rrcm_dist.errors import InvalidInput, RunFailure


def describe_status(run: SubmittedRun) -> str:
    """The status as a person reads it; what the scheduler does not tell, the run folder does."""
    lives = run.history.lives()
    state = f"{run.folder}: job {run.job}, {_state(run, lives)}"
    if run.submission["kind"] == "certify":
        told = [*_sweep(run.folder), *_restarts(lives, "draw")]
    elif run.submission["kind"] in TRAINED:
        told = [*_training(run.folder, lives), *_restarts(lives, "step")]
    else:
        told = _restarts(lives)
    return "\n".join(filter(None, [state, *told, _why_not_again(run, lives)]))


def _training(run: Path, lives: list[Life]) -> list[str]:
    newest, of_run = newest_checkpoint(run), True
    if newest is None:
        newest, of_run = newest_checkpoint(run / FIRST_STAGE), False
    if newest is None:
        return [progress_line(run, lives), "no checkpoint yet"]
    age = _duration(datetime.now(UTC) - newest.written)
    name = newest.name if of_run else f"{newest.name} of the {FIRST_STAGE}"
    finished = ": finished" if newest.finished and of_run else ""
    return [progress_line(run, lives), f"checkpoint {name}, {age} old{finished}"]


def _sweep(run: Path) -> list[str]:
    from rrcm_dist.certification.status import describe_status as describe_sweep
    from rrcm_dist.certification.status import read_status

    try:
        return [describe_sweep(read_status(run))]
    except InvalidInput:
        return ["nothing was drawn yet"]


def _state(run: SubmittedRun, lives: list[Life]) -> str:
    try:
        state, reason = run.place.state()
    except RunFailure as error:
        state, reason = "", str(error)
    return ": ".join(filter(None, [state, reason])) if state else f"{_last_words(lives)} ({reason})"


def _last_words(lives: list[Life]) -> str:
    if not lives:
        return "never started"
    last = lives[-1]
    return f"last known: {last.cause}" if last.cause else f"last known: running since {last.started:%Y-%m-%d %H:%M} UTC"


def progress_line(run: Path, lives: list[Life]) -> str:
    """Steps, samples, speed and ETA of a training run, or of its first stage while that runs, from its folder; empty
    before the first are told."""
    stage = current_stage(run)
    metrics = last_metrics(stage)
    if not metrics:
        return ""
    total = total_steps(stage, (run / f"logs/life-{life.number}/rank-0.log" for life in reversed(lives)))
    step, samples, speed = metrics["step"], metrics["samples_seen"], metrics["images_per_second"]
    of_all = f" of {total}" if total else ""
    line = f"{FIRST_STAGE}: " * (stage != run) + f"step {step}{of_all}, {samples:,} samples, {speed:,.0f} images/s"
    if not total or not speed or step >= total:
        return line
    return f"{line}, ETA {_duration(timedelta(seconds=(total - step) * samples_per_step(stage, metrics) / speed))}"


def _restarts(lives: list[Life], unit: str | None = None) -> list[str]:
    """How many there were, and a line for each life; `unit` is what lives come further by, if by anything."""
    count = max(0, len(lives) - 1)
    lines = [f"{count} restart{'' if count == 1 else 's'}"]
    for life in lives:
        if life.cause is None or life.ended is None:
            lines.append(f"  life {life.number}: {life.started:%m-%d %H:%M:%S} UTC to now{_from(unit, life)}")
            continue
        detail = f" ({life.detail})" if life.detail else ""
        times = f"{life.started:%m-%d %H:%M:%S} to {life.ended:%m-%d %H:%M:%S} UTC"
        lines.append(f"  life {life.number}: {times}{_from(unit, life)}: {life.cause}{detail}")
    return lines


def _from(unit: str | None, life: Life) -> str:
    end = "" if life.end_step is None else f" to {life.end_step}"
    return f", from {unit} {life.start_step}{end}" if unit else ""


def _why_not_again(run: SubmittedRun, lives: list[Life]) -> str:
    """Why a run that has failed is not tried again; empty where its last cause says all."""
    if not lives or lives[-1].cause is None:
        return ""
    place = DRAW if run.submission["kind"] == "certify" else CHECKPOINT
    waits = "workers" in run.submission
    again, why_not = goes_on(lives, run.submission["site"].get("crashes_allowed", 0), place, waits)
    return "" if again or not why_not else f"it was not tried again: {why_not}"


def _duration(time: timedelta) -> str:
    seconds = int(time.total_seconds())
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"
