"""The progress bar of a verification: over all passes, with images, speed and errors so far beside it."""

from rrcm_dist.certification.verification.snapshot import VerificationSnapshot
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
