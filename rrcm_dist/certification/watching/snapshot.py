"""What a running certification shows to whoever watches: one snapshot, at most once a second, to every watcher."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class LevelState:
    """Where one noise level stands. Images held by the ledger before this start are counted in."""

    sigma: float
    images: int
    """Images asked for."""
    decided: int
    """Images that need no further draw."""
    failed: int
    """Images given up, with a reason in the ledger."""
    radii: tuple[float, ...]
    """The grid, ascending, in ℓ2 of [0, 1] pixels."""
    certified: tuple[int, ...]
    """Decided images that are correct with a certified radius of at least each of `radii`."""
    draws: int
    """Draws spent on the decided images, selection included."""
    draws_saved: int
    """Draws that the decided images would have cost besides in mode fixed; 0 in that mode."""


@dataclass(frozen=True)
class Snapshot:
    """Where the whole run stands."""

    seconds: float
    """Since this start."""
    draws: int
    """Draws counted since this start."""
    draws_left: int
    """The most draws that may still be needed; in mode adaptive most of them will not be."""
    draws_per_second: float
    """Over the last ten seconds or so."""
    worker_draws_per_second: Mapping[str, float]
    """The same for each living worker, by its name."""
    blocks_queued: int
    """Blocks known to be needed that no worker has."""
    blocks_in_flight: int
    """Blocks that a worker has."""
    blocks_retried: int
    """Blocks given to another worker since this start, because one failed or went."""
    blocks_audited: int
    """Blocks counted twice since this start, to compare."""
    levels: tuple[LevelState, ...]
    """In the recipe's order."""


class Watcher(Protocol):
    """Something that shows a run. Nothing it does may stop the run: it keeps its own failures to itself."""

    def update(self, snapshot: Any) -> None:
        """Called by the driver with the snapshot of its kind of work, at most once a second and once at the end."""

    def close(self) -> None:
        """The run is over, well or badly."""
