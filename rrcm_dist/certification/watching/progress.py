"""The progress bar of a certification: over all draws that it may take, with images, speed and savings beside it."""

from rrcm_dist.certification.watching.snapshot import Snapshot
from rrcm_dist.progress import Bar


class ProgressWatcher:
    """Moves a bar of draws: made, or no longer needed."""

    def __init__(self, bar: Bar, draws_left: int) -> None:
        self._bar, self._draws_left = bar, draws_left

    def update(self, snapshot: Snapshot) -> None:
        """Move the bar to where the run stands."""
        levels = snapshot.levels
        images, decided = sum(level.images for level in levels), sum(level.decided for level in levels)
        failed, saved = sum(level.failed for level in levels), sum(level.draws_saved for level in levels)
        notes = [f"images {decided}/{images}", f"{snapshot.draws_per_second:,.0f} draws/s"]
        workers = len(snapshot.worker_draws_per_second)
        notes += [f"{workers} workers"] if workers > 1 else []
        notes += [f"{saved:,} draws saved"] if saved else []
        notes += [f"{failed} images failed"] if failed else []
        self._bar.advance(self._draws_left - snapshot.draws_left, "  ".join(notes))
        self._draws_left = snapshot.draws_left

    def close(self) -> None:
        """The bar ends with its context."""
