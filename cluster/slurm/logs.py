"""The logs of a submitted run: those of its newest life, and the job's own."""

import time
from pathlib import Path

from cluster.slurm.runs import SubmittedRun, is_live
from rrcm_dist.errors import InvalidInput

POLL_SECONDS, JOB_SECONDS = 0.5, 15.0


def show_logs(run: SubmittedRun, rank: int | None, lines: int, follow: bool) -> None:
    """Print the last lines of each log, then, where followed, what is added, each line with its log's name.

    A life that begins meanwhile is taken up; the end of the job is the end.
    """
    shown: dict[Path, int] = {}
    if not _logs(run, rank) and not follow:
        what = "the run" if rank is None else f"rank {rank}"
        raise InvalidInput(f"{what} has written nothing yet: see `python -m cluster status {run.folder}`")
    for log in _logs(run, rank):
        shown[log] = _start_of_last(log, lines)
    _print_new(run, rank, shown)
    asked = time.monotonic()
    while follow:
        time.sleep(POLL_SECONDS)
        ended = False
        if time.monotonic() - asked > JOB_SECONDS:
            ended, asked = not is_live(run.job), time.monotonic()
        _print_new(run, rank, shown)
        if ended:
            return


def _logs(run: SubmittedRun, rank: int | None) -> list[Path]:
    lives = run.history.lives()
    newest = run.folder / "logs" / f"life-{lives[-1].number}" if lives else None
    of_ranks = sorted(newest.glob("rank-*.log"), key=_rank_of) if newest else []
    if rank is not None:
        return [log for log in of_ranks if _rank_of(log) == rank]
    return [*run.folder.glob(f"cluster/submission-*/{run.job}_*_log.out"), *of_ranks]


def _print_new(run: SubmittedRun, rank: int | None, shown: dict[Path, int]) -> None:
    for log in _logs(run, rank):
        with open(log, "rb") as file:
            file.seek(shown.get(log, 0))
            text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            shown[log] = shown.get(log, 0) + len(whole)
        name = f"{log.parent.name} {log.stem}" if log.stem.startswith("rank-") else "job"
        for line in whole.decode(errors="replace").splitlines():
            print(f"{name}: {line}", flush=True)


def _start_of_last(log: Path, lines: int) -> int:
    text = log.read_bytes()
    return len(text) - len(b"".join(text.splitlines(keepends=True)[-lines:])) if lines else len(text)


def _rank_of(log: Path) -> int:
    return int(log.stem.removeprefix("rank-"))
