"""What a run's folder keeps of its jobs and their lives; lines are only ever appended.

cluster/jobs.jsonl     one line a submission: job, time, kind, recipe, command, working folder, site
cluster/lives.jsonl    one line when a life of the job begins, one when it ends: life, event, time, job, step, cause, …
cluster/preflight/life-K/report.json  what was found on the nodes before the life began on them
cluster/submission-N/  of a submission: the log of its job, and the recipe that it runs
logs/life-K/rank-R.log
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any


class Cause(StrEnum):
    """Why a life ended."""

    DONE = "done"
    TIME_LIMIT = "time limit"
    PREEMPTED = "preempted"
    REQUEUED = "requeued"
    NODE_LOST = "node lost"
    CRASHED = "crashed"
    REFUSED = "refused"
    """The command itself is wrong: no second try would be better."""
    CANCELLED = "cancelled"
    PREFLIGHT = "preflight"
    """Nodes were found unfit before the run began on them."""


@dataclass(frozen=True)
class Life:
    """One life of a job: from when it was started to when it stopped."""

    number: int
    """Counts on over all jobs of the run."""
    job: str
    started: datetime
    start_step: int
    """Of the checkpoint that it went on from; 0 for none."""
    ended: datetime | None = None
    """None while it lives, and where it ended without a word."""
    cause: Cause | None = None
    end_step: int | None = None
    """Of the newest checkpoint when it ended."""
    detail: str = ""
    excluded: tuple[str, ...] = ()
    """Nodes that it found unfit, and that its job is not to be given again."""


class History:
    """The history of one run folder."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "cluster"
        self._jobs, self._lives = self.folder / "jobs.jsonl", self.folder / "lives.jsonl"

    def jobs(self) -> list[dict[str, Any]]:
        """Submissions, oldest first."""
        return _read(self._jobs)

    def add_job(
        self, job: str, kind: str, recipe: Path, command: list[str], site: Mapping[str, Any], **more: str
    ) -> None:
        """Remember a submission: what is run on what, by which command.

        `more` are other jobs by what they are to it: `workers`, an array, and `after`, those it waits for.
        """
        about = {"kind": kind, "recipe": str(recipe), "command": command, "working_folder": os.getcwd(), "site": site}
        _append(self._jobs, {"job": job, **more, "time": _now(), **about})

    def next_submission(self) -> Path:
        """Folder for a submission to come: of its own, as the same job number may come again on another cluster."""
        taken = [int(folder.name.split("-")[1]) for folder in self.folder.glob("submission-*")]
        return self.folder / f"submission-{max(taken, default=0) + 1}"

    def lives(self) -> list[Life]:
        """Oldest first."""
        lives: dict[int, Life] = {}
        for line in _read(self._lives):
            number, time = line["life"], datetime.fromisoformat(line["time"])
            if line["event"] == "started":
                lives[number] = Life(number, line["job"], time, line["step"])
            else:
                begun = lives[number]
                lives[number] = Life(
                    number, begun.job, begun.started, begun.start_step, time, Cause(line["cause"]), line["step"],
                    line["detail"], tuple(line.get("excluded", ())),
                )  # fmt: skip
        return list(lives.values())

    def begin(self, job: str, step: int) -> Life:
        """A new life begins at the checkpoint of this step.

        Of one before that ended without a word: where the job itself came back, its node was lost; where another job
        had to come, whoever watched over it was killed.
        """
        lives = self.lives()
        if lives and lives[-1].cause is None:
            if lives[-1].job == job:
                self.end(lives[-1], Cause.NODE_LOST, step, "it ended without a word, as when its first node dies")
            else:
                self.end(lives[-1], Cause.CRASHED, step, "it ended without a word, as when its supervisor is killed")
        life = Life(len(lives), job, datetime.now(UTC), step)
        line = {"life": life.number, "event": "started", "time": _now(), "job": job, "step": step}
        _append(self._lives, line)
        return life

    def end(self, life: Life, cause: Cause, step: int, detail: str = "", excluded: Sequence[str] = ()) -> None:
        """A life ends, the newest checkpoint being that of `step`; `excluded` are nodes found unfit."""
        line = {"life": life.number, "event": "ended", "time": _now(), "cause": cause, "step": step, "detail": detail}
        _append(self._lives, {**line, **({"excluded": list(excluded)} if excluded else {})})

    def excluded(self, job: str) -> list[str]:
        """Nodes that the lives of this job found unfit."""
        return sorted({node for life in self.lives() if life.job == job for node in life.excluded})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _append(file: Path, line: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "ab+") as opened:
        opened.seek(max(0, opened.seek(0, os.SEEK_END) - 1))
        cut_short = opened.read() not in (b"", b"\n")
        opened.write(("\n" * cut_short + json.dumps(line, ensure_ascii=False) + "\n").encode())


def _read(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    lines = []
    for text in file.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:  # cut short by the end of its writer
            continue
    return lines
