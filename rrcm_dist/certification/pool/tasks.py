"""A task: one unit of work, and what became of it so far. Who may have it next, and when it is given up."""

from collections.abc import Collection
from dataclasses import dataclass, field

from rrcm_dist.certification.pool.work import Result, Track, Unit

ERRORS_BEFORE_FAILURE = 3
"""Workers that may fail at a unit (raise, return NaN or wrong shapes) before its image is given up."""
LOSSES_BEFORE_ALONE = 2
"""Workers that may die with a unit among others before it is done alone, to tell whether it is the one to blame."""
LOSSES_BEFORE_FAILURE = 8
"""Workers that may die in a row, each at one unit of an image alone, before the image is given up.

Where workers die every few seconds for other reasons, a unit of half a second is lost so often with a chance of 10⁻⁷.
"""


@dataclass
class Task:
    """One unit of one track on its way."""

    track: Track
    unit: Unit
    errors: list[str] = field(default_factory=list)
    """What each worker that failed at it said, with its host."""
    losses: int = 0
    """Workers that died while they may have worked at it."""
    avoid: set[str] = field(default_factory=set)
    """Workers that it should not go to again while there are others."""
    first: Result | None = None
    """Of an audit: what came of it before, by another worker if there is one."""
    first_worker: str = ""
    """Which worker that was."""

    @property
    def alone(self) -> bool:
        """Whether it is to be done apart from others."""
        return self.losses >= LOSSES_BEFORE_ALONE

    @property
    def given_up(self) -> str:
        """Why no further worker is to try it; empty while one is."""
        if len(self.errors) >= ERRORS_BEFORE_FAILURE:
            return f"{len(self.errors)} tries failed; the last: {self.errors[-1]}"
        if self.track.losses_alone >= LOSSES_BEFORE_FAILURE:
            deaths = self.track.losses_alone
            return f"{self.unit.title}: {deaths} workers in a row died at it or at another part of this image's work"
        return ""

    def may_go_to(self, worker: str, workers: Collection[str]) -> bool:
        """Whether `worker` may have it: one that should not only where none of `workers` should."""
        return worker not in self.avoid or (bool(workers) and self.avoid.issuperset(workers))

    def failed(self, worker: str, message: str) -> None:
        """A worker told that it could not do it."""
        self.errors.append(message)
        self.avoid.add(worker)

    def lost(self, alone: bool) -> None:
        """The worker that may have been at it, and at nothing else if `alone`, is gone."""
        self.losses += 1
        self.track.losses_alone += alone

    def mismatch(self, second: Result, worker: str) -> str:
        """Of an audit: how `second`, by `worker`, differs from the first result, naming both; empty if it does not."""
        assert self.first is not None, "only an audited unit was done before"
        difference = self.first.difference(second)
        if not difference:
            return ""
        who = f"{self.first_worker} and {worker} (host/worker)"
        return f"audit: {self.unit.title} came out differently by {who}: {difference}"
