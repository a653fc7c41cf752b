"""Where a certification stands, read from its ledger by any process while it runs or after. Knows nothing of torch."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrcm_dist.certification.ledger.lock import is_written
from rrcm_dist.certification.ledger.place import ledger_at
from rrcm_dist.certification.ledger.reader import LedgerReader
from rrcm_dist.certification.ledger.reading import FailedImage
from rrcm_dist.certification.statistics.bounds import shortest


@dataclass(frozen=True)
class Status:
    """What a ledger tells of its run."""

    ledger: Path
    name: str
    mode: str
    n: int
    seconds_ago: float | None
    """Since the writing process last told where it stood; None where it never did."""
    progress: dict[str, Any]
    """`watching.snapshot.Snapshot` as it stood then; empty where there is none."""
    levels: list[dict[str, Any]]
    """`watching.snapshot.LevelState` of every noise level of the ledger, ascending."""
    failed: dict[float, list[FailedImage]]
    running: bool
    """Whether a process has it open for writing."""

    @property
    def done(self) -> bool:
        """Whether nothing was left to draw."""
        return bool(self.progress) and self.progress["draws_left"] == 0


def read_status(path: Path) -> Status:
    """The status of the ledger at `path`, a file or the output folder that holds it.

    Raises `InvalidInput` where there is none and `RunFailure` for a damaged one.
    """
    path = ledger_at(path)
    with LedgerReader(path) as reader:
        progress = reader.progress
        sigmas = [level.sigma for level in reader.classifiers()]
        failed = {sigma: reader.failures(sigma) for sigma in sigmas}
        told = {level["sigma"]: level for level in progress.get("levels", ())}
        levels = [told.get(sigma) or _level_of(reader, sigma) for sigma in sigmas]
        return Status(
            path, reader.name, reader.mode, reader.n, time.time() - progress["time"] if progress else None, progress,
            levels, failed, is_written(path),
        )  # fmt: skip


def _level_of(reader: LedgerReader, sigma: float) -> dict[str, Any]:
    """A noise level that the newest start did not ask for: what its counts come to."""
    certificates = reader.certificates(sigma)
    draws = sum(c.n0 + c.n for c in certificates)
    certified = [sum(c.correct and c.radius >= radius for c in certificates) for radius in reader.radii]
    return {
        "sigma": sigma, "images": reader.images(), "decided": len(certificates), "failed": len(reader.failures(sigma)),
        "radii": list(reader.radii), "certified": certified, "draws": draws,
        "draws_saved": len(certificates) * (reader.identity.n0 + reader.n) - draws,
    }  # fmt: skip


def describe_status(status: Status) -> str:
    """The status as a person reads it: one line a noise level, then speed, ETA, workers and failures."""
    head = f"{status.name or status.ledger.parent.name}: mode {status.mode}, n {status.n:,}, {status.ledger}"
    levels = status.levels
    if not any(level["draws"] for level in levels) and not status.progress:
        return f"{head}\n{'a run is starting' if status.running else 'nothing was drawn yet'}"
    grid = sorted({radius for level in levels for radius in level["radii"]})
    radii = [radius for radius in grid if any(_at(level, radius) for level in levels)] or [0.0]
    rows = [("σ", "images", "failed", "draws", "saved", *(f"r {shortest(radius)}" for radius in radii))]
    rows += [_row(level, radii) for level in levels]
    lines = [head, *_aligned(rows), "certified accuracy in %, of the images decided so far", _speed(status)]
    for sigma, failures in status.failed.items():
        lines += [f"given up at σ {sigma:g}: image {f.image} ({f.key}): {f.reason}" for f in failures]
    return "\n".join(lines)


def _row(level: dict[str, Any], radii: Sequence[float]) -> tuple[str, ...]:
    over = level["decided"] + level["failed"]
    shares = [f"{100 * _at(level, radius) / over:.1f}" if over else "–" for radius in radii]
    return (
        f"{level['sigma']:g}", f"{over}/{level['images']}", str(level["failed"]), f"{level['draws']:,}",
        f"{level['draws_saved']:,}", *shares,
    )  # fmt: skip


def _at(level: dict[str, Any], radius: float) -> int:
    return int(dict(zip(level["radii"], level["certified"], strict=True)).get(radius, 0))


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _speed(status: Status) -> str:
    now = status.progress
    if not now:
        return "merged: no run has drawn into this ledger itself"
    audited = f"; {now['blocks_audited']:,} blocks audited" if now["blocks_audited"] else ""
    if status.done and not status.running:
        return f"done: nothing is left to draw{audited}"
    if not status.running:
        ago = _duration(status.seconds_ago or 0)
        return f"not running (last heard of {ago} ago): the same `rrcm certify` command goes on from here"
    rate, left = now["draws_per_second"], now["draws_left"]
    eta = f"at most {_duration(left / rate)} left" if rate else "no speed known yet"
    workers = len(now["worker_draws_per_second"])
    return (
        f"running: {rate:,.0f} draws/s on {workers} worker{'s' * (workers != 1)}, {eta}; blocks queued "
        f"{now['blocks_queued']:,}, in flight {now['blocks_in_flight']:,}, retried {now['blocks_retried']:,}{audited}"
    )


def _duration(seconds: float) -> str:
    """'3 h 20 min', '4 min 10 s', '12 s'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
