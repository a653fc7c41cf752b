"""What shows a running verification: a progress bar over all passes, and what Weights & Biases is told."""

from typing import Any

from rrcm_dist.certification.verification.snapshot import EpsilonState, VerificationSnapshot
from rrcm_dist.progress import Bar


class VerificationProgress:
    """A watcher (`watching.snapshot.Watcher`) that moves a bar of passes through the network."""

    def __init__(self, bar: Bar, passes_left: int) -> None:
        self._bar, self._left = bar, passes_left

    def update(self, snapshot: VerificationSnapshot) -> None:
        """Move the bar to where the run stands."""
        levels = snapshot.levels
        images, decided = sum(level.images for level in levels), sum(level.decided for level in levels)
        failed, unverified = sum(level.failed for level in levels), sum(level.verified_errors for level in levels)
        notes = [f"images {decided}/{images}", f"{snapshot.passes_per_second:,.0f} passes/s"]
        workers = len(snapshot.worker_passes_per_second)
        notes += [f"{workers} workers"] if workers > 1 else []
        notes += [f"verified {decided - unverified}"] if decided else []
        notes += [f"{failed} images failed"] if failed else []
        self._bar.advance(self._left - snapshot.passes_left, "  ".join(notes))
        self._left = snapshot.passes_left

    def close(self) -> None:
        """The bar ends with its context."""


def point(snapshot: VerificationSnapshot) -> dict[str, float]:
    """What Weights & Biases is told of one moment: counts and rates of the run, errors of every ε so far.

    Errors, shares of the images decided or given up so far, are left out while there are none.
    """
    values: dict[str, float] = {
        "images_decided": sum(level.decided for level in snapshot.levels),
        "images_failed": sum(level.failed for level in snapshot.levels),
        "seconds": snapshot.seconds,
        "passes": snapshot.passes,
        "passes_per_second": snapshot.passes_per_second,
        "workers": len(snapshot.worker_passes_per_second),
        "images_retried": snapshot.images_retried,
    }
    for level in snapshot.levels:
        values |= {f"epsilon_{level.epsilon:g}/{name}": error for name, error in _errors(level).items()}
    return values


def chart(snapshot: VerificationSnapshot) -> tuple[str, Any] | None:
    """Errors against ε as a chart of Weights & Biases, by name; None where there are none."""
    levels = sorted((level for level in snapshot.levels if _errors(level)), key=lambda level: level.epsilon)
    if not levels:
        return None
    import wandb

    errors = [_errors(level) for level in levels]
    return "errors", wandb.plot.line_series(
        xs=[level.epsilon for level in levels],
        ys=[[each[name] for each in errors] for name in ("pgd_error", "verified_error")],
        keys=["PGD error", "verified error"],
        title="Errors at ℓ∞ radius ε",
        xname="epsilon",
    )


def _errors(level: EpsilonState) -> dict[str, float]:
    """Errors by name, as a report counts them: one that was given up is an error of every kind. Empty before any."""
    done = level.decided + level.failed
    if not done:
        return {}
    return {
        "clean_error": (level.clean_errors + level.failed) / done,
        "pgd_error": (level.pgd_errors + level.failed) / done,
        "verified_error": (level.verified_errors + level.failed) / done,
    }
