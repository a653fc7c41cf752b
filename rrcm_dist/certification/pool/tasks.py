"""A task: one block to be counted, and what became of it so far. Who may count it next, and when it is given up."""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from rrcm_dist.certification.blocks import Block, BlockCounts
from rrcm_dist.certification.pool.tracks import Track

ERRORS_BEFORE_FAILURE = 3
"""Workers that may fail at a block (raise, return NaN or wrong shapes) before its image is given up."""
LOSSES_BEFORE_ALONE = 2
"""Workers that may die with a block among others before it is counted alone, to tell whether it is the one to blame."""
LOSSES_BEFORE_FAILURE = 8
"""Workers that may die in a row, each counting one block of an image alone, before the image is given up.

Where workers die every few seconds for other reasons, a block of half a second is lost so often with a chance of 10⁻⁷.
"""


@dataclass
class Task:
    """One block of one track on its way."""

    track: Track
    block: Block
    errors: list[str] = field(default_factory=list)
    """What each worker that failed at it said, with its host."""
    losses: int = 0
    """Workers that died while they may have counted it."""
    avoid: set[str] = field(default_factory=set)
    """Workers that it should not go to again while there are others."""
    first: BlockCounts | None = None
    """Of an audit: what was counted before, by another worker if there is one."""
    first_worker: str = ""
    """Which worker that was."""

    @property
    def alone(self) -> bool:
        """Whether it is to be counted apart from others."""
        return self.losses >= LOSSES_BEFORE_ALONE

    @property
    def given_up(self) -> str:
        """Why no further worker is to try it; empty while one is."""
        where = f"{self.block.stage.name.lower()} block {self.block.number}"
        if len(self.errors) >= ERRORS_BEFORE_FAILURE:
            return f"{len(self.errors)} tries failed; the last: {self.errors[-1]}"
        if self.track.losses_alone >= LOSSES_BEFORE_FAILURE:
            deaths = self.track.losses_alone
            return f"{where}: {deaths} workers in a row died while they counted it or another block of this image"
        return ""

    def may_go_to(self, worker: str, workers: Collection[str]) -> bool:
        """Whether `worker` may have it: one that should not only where none of `workers` should."""
        return worker not in self.avoid or (bool(workers) and self.avoid.issuperset(workers))

    def failed(self, worker: str, message: str) -> None:
        """A worker told that it could not count it."""
        self.errors.append(message)
        self.avoid.add(worker)

    def lost(self, alone: bool) -> None:
        """The worker that may have been counting it, and nothing else if `alone`, is gone."""
        self.losses += 1
        self.track.losses_alone += alone

    def mismatch(self, second: BlockCounts, worker: str) -> str:
        """Of an audit: how `second`, by `worker`, differs from the first count, naming both; empty if it does not."""
        assert self.first is not None, "only an audited block was counted before"
        if np.array_equal(self.first.counts, second.counts):
            return ""
        differing = int(np.abs(self.first.counts - second.counts).sum()) // 2
        return (
            f"audit: {self.block.stage.name.lower()} block {self.block.number} was counted differently by "
            f"{self.first_worker} and {worker} (host/worker): {differing} of {self.block.draws} draws"
        )
