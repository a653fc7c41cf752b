"""The logs of a submitted run: those of its newest life, and the job's own."""

import time
from contextlib import suppress
from pathlib import Path

from cluster.watching.runs import SubmittedRun
from rrcm_dist.errors import InvalidInput, RunFailure

POLL_SECONDS, JOB_SECONDS = 0.5, 15.0
JOB_LOG_SECONDS = 3.0
"""Between looks at what the job itself has printed, which may be on another machine."""


def show_logs(run: SubmittedRun, rank: int | None, lines: int, follow: bool) -> None:
    """Print the last lines of each log, then, where followed, what is added, each line with its log's name.

    A life that begins meanwhile is taken up; the end of the job is the end.
    """
    logs = _Logs(run, rank)
    if not logs.show(lines) and not follow:
        what = "the run" if rank is None else f"rank {rank}"
        raise InvalidInput(f"{what} has written nothing yet: see `python -m cluster status {run.folder}`")
    asked = time.monotonic()
    while follow:
        time.sleep(POLL_SECONDS)
        ended = False
        if time.monotonic() - asked > JOB_SECONDS:
            asked = time.monotonic()
            with suppress(RunFailure):  # a scheduler that is silent for a while
                ended = not run.place.is_live()
        logs.show(None)
        if ended:
            return


class _Logs:
    """What of each log was shown."""

    def __init__(self, run: SubmittedRun, rank: int | None) -> None:
        self._run, self._rank = run, rank
        self._shown: dict[str, int] = {}
        self._job_log_at = float("-inf")

    def show(self, lines: int | None) -> bool:
        """Print what is new, of each log only so many of its last lines; whether there is any log."""
        found = False
        if self._rank is None and time.monotonic() - self._job_log_at > JOB_LOG_SECONDS:
            self._job_log_at = time.monotonic()
            text = self._run.place.log()
            self._print("job", text[self._shown.get("job", 0) :], lines)
            found = bool(text)
        for log in [*self._of_ranks(), *self._of_sweep()]:
            found = True
            name = f"{log.parent.name} {log.stem}"
            with open(log, "rb") as file:
                file.seek(self._shown.get(name, 0))
                self._print(name, file.read(), lines)
        return found

    def _print(self, name: str, new: bytes, lines: int | None) -> None:
        whole = new[: new.rfind(b"\n") + 1]
        self._shown[name] = self._shown.get(name, 0) + len(whole)
        split = whole.decode(errors="replace").splitlines()
        for line in split if lines is None else split[len(split) - min(lines, len(split)) :]:
            print(f"{name}: {line}", flush=True)

    def _of_ranks(self) -> list[Path]:
        folder, lives = self._run.folder / "logs", self._run.history.lives()
        if lives and self._run.submission["site"]["backend"] != "local":  # a run on this machine has but one life
            folder /= f"life-{lives[-1].number}"
        logs = sorted(folder.glob("rank-*.log"), key=_rank_of)
        return logs if self._rank is None else [log for log in logs if _rank_of(log) == self._rank]

    def _of_sweep(self) -> list[Path]:
        """Of a certification: what the newest life's driver says, and the worker jobs."""
        if self._rank is not None:
            return []
        sweeps = sorted((self._run.folder / "logs").glob("life-*/certify.log"), key=lambda log: log.stat().st_mtime)
        workers = self._run.submission.get("workers")
        return [*sweeps[-1:], *sorted(self._run.folder.glob(f"cluster/submission-*/{workers}_*_log.out"))]


def _rank_of(log: Path) -> int:
    return int(log.stem.removeprefix("rank-"))
