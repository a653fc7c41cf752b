"""What the pool needs to know of the work that it hands out, whatever that is: counting noise draws, or verifying.

A track is one image at one level (a σ, an ε); it hands out units, each the work of one worker for a moment. An answer
is what a worker returned for a unit, a result what that means once it was found to be in order.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rrcm_dist.certification.images import CertifiedImage

Pixels = Mapping[int, NDArray[np.uint8]]
"""Images by sample id, uint8 (C, H, W)."""


class Unit(Protocol):
    """The unit of work, of retry and of storage; what comes of it depends on the run and on its name alone."""

    @property
    def image(self) -> int:
        """Sample id of the image that it needs."""

    @property
    def cost(self) -> int:
        """How much work it is, in the units of the progress bar."""

    @property
    def title(self) -> str:
        """What messages call it among others of the same image: 'selection block 3'."""


class Answer(Protocol):
    """What a worker returned for one unit."""

    @property
    def seconds(self) -> float:
        """Time that it took."""

    @property
    def problem(self) -> str:
        """Why there is no result; empty where there is one."""


class Result(Protocol):
    """What became of one unit."""

    def difference(self, other: Any) -> str:
        """How another result of the same unit differs, in words; empty where it does not."""


class Worker(Protocol):
    """Something that works; it keeps no state that could change an answer."""

    def work(self, units: Sequence[Any], pixels: Pixels) -> Sequence[Answer]:
        """One answer a unit, in order; `pixels` has the image of each."""


class Track(Protocol):
    """One image at one level, and where it stands."""

    @property
    def image(self) -> CertifiedImage:
        """The image."""

    @property
    def level(self) -> Hashable:
        """Which level it is at."""

    @property
    def place(self) -> str:
        """The level in words: 'sigma 0.5'."""

    over: bool
    """Whether it needs nothing more: complete, stopped, or given up."""
    losses_alone: int
    """Workers that died in a row, each while it worked at one unit of this track alone."""

    @property
    def needed(self) -> int:
        """Units known to be needed that were not handed out."""

    @property
    def remaining(self) -> int:
        """The most cost that it may still need, what is handed out counted in."""

    @property
    def doom(self) -> str:
        """Why the unit whose turn it is cannot be done; empty where nothing is known against it."""

    def next_unit(self, ahead: int = 0) -> Any:
        """Hand out the next unit that is needed, or one of `ahead` further ones that may be; None if there is none."""

    def accept(self, result: Any) -> None:
        """Take a result, which `Work.settle` then makes count."""

    def reject(self, unit: Any, reason: str) -> bool:
        """No worker can do `unit`. Whether that is the end of the track; else `doom` tells when it is."""

    def end(self) -> None:
        """It needs nothing more."""


@dataclass(frozen=True)
class Batching:
    """How much a worker is given at once."""

    seconds: float
    """About so much work."""
    most: int
    """And at most so many units."""
    least: int = 1
    """But so many units where there are as many, however long they take: a GPU works best on full batches."""


@dataclass(frozen=True)
class Pulse:
    """How a run goes at one moment, in the units of `Unit.cost`."""

    seconds: float
    """Since this start."""
    done: int
    """Returned since this start."""
    left: int
    """The most that may still be needed."""
    per_second: float
    """Over the last ten seconds or so."""
    worker_per_second: Mapping[str, float]
    """The same for each living worker, by its name."""
    queued: int
    """Units known to be needed that no worker has."""
    in_flight: int
    """Units that a worker has."""
    retried: int
    """Units given to another worker since this start, because one failed or went."""
    audited: int
    """Units done twice since this start, to compare."""


class WorkLedger(Protocol):
    """Where the results of a kind of work are kept."""

    def forgive(self) -> None:
        """Forget all failures: these images are tried again."""

    def fail(self, level: Any, image: int, reason: str) -> None:
        """Note that an image was given up at a level, and why."""

    def set_progress(self, progress: Mapping[str, Any]) -> None:
        """Note where the run stands."""

    def commit(self) -> None:
        """Put everything where a kill cannot reach it."""


class Work(Protocol):
    """A kind of work: what a run needs, what answers mean, where results go."""

    @property
    def ledger(self) -> WorkLedger:
        """Where results go."""

    @property
    def batching(self) -> Batching:
        """How much a worker is given at once."""

    @property
    def worked(self) -> set[Hashable]:
        """Levels at which there was ever a result."""

    def tracks(self) -> list[Any]:
        """The tracks that are not over, with what the ledger holds of them."""

    def result(self, unit: Any, answer: Any, host: str) -> Any:
        """What an answer without a problem means. Raises ValueError where it cannot be the answer to `unit`."""

    def settle(self, tracks: Sequence[Any]) -> list[Any]:
        """Make results that have come count: into the ledger, and into the decision on what is still needed.

        Returns those of `tracks` for which something came to count; each may be over now.
        """

    def given_up(self, track: Any, reason: str) -> None:
        """A track was given up."""

    def snapshot(self, pulse: Pulse) -> Any:
        """Where the run stands, a dataclass of JSON values, for the ledger and its watchers."""
