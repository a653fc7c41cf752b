"""A track: one image at one σ, and where it stands. Which of its blocks are needed, out, or counted."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from rrcm_dist.certification.blocks import Block, BlockCounts, Stage
from rrcm_dist.certification.images import CertifiedImage
from rrcm_dist.certification.plan import PlannedBlocks
from rrcm_dist.certification.statistics.certificates import ImageCounts


class Track:
    """In mode fixed every planned block is needed and counts when it comes.

    In mode adaptive (`in_order`) blocks count in their order alone: whether one is needed is known when the one before
    has been looked at. A block counted ahead of its turn waits, and is dropped where the image stops before.
    """

    def __init__(self, image: CertifiedImage, sigma: float, planned: PlannedBlocks, in_order: bool) -> None:
        self.image, self.level = image, sigma
        self.place = f"sigma {sigma:g}"
        self.lower = 0.0
        """Mode adaptive: highest lower bound of the candidate's probability at any look so far."""
        self.over = False
        """Whether it needs nothing more: complete, stopped, or given up."""
        self.draws = 0
        """Draws counted so far, selection included."""
        self.losses_alone = 0
        """Workers that died in a row, each while it counted one block of this track alone."""
        self._planned, self._in_order = planned, in_order
        self._most_draws = sum(draws for _, _, draws in planned)
        self._selection_blocks = sum(stage == Stage.SELECTION for stage, _, _ in planned)
        self._certain = self._selection_blocks + 1 if in_order else len(planned)
        """Position before which every block is needed whatever the counts."""
        self._handed = self._counted = 0
        """Position of the first block never handed out; blocks that count."""
        self._held: set[int] = set()
        """Positions from `_handed` on that need not be handed out."""
        self._ahead: dict[int, BlockCounts] = {}
        self._doomed: dict[int, str] = {}
        """Blocks, handed out ahead of their turn, that no worker can count, and why."""
        self._totals: dict[Stage, NDArray[np.int64]] = {}
        self._seconds = 0.0
        self._looks: list[tuple[int, int]] = []

    @property
    def needed(self) -> int:
        """Blocks known to be needed that were not handed out."""
        return 0 if self.over else max(0, self._certain - self._handed - len(self._held))

    @property
    def remaining(self) -> int:
        """Draws that it may still need, those handed out counted in."""
        return 0 if self.over else self._most_draws - self.draws

    @property
    def doom(self) -> str:
        """Why the block whose turn it is cannot be counted; empty where nothing is known against it."""
        return self._doomed.get(self._counted, "")

    @property
    def looks(self) -> list[tuple[int, int]]:
        """Mode adaptive: (successes of the candidate, trials) after each estimation block that counts."""
        return self._looks

    def resume(self, held: Iterable[BlockCounts]) -> None:
        """Take the blocks that the ledger holds, before any is handed out.

        A block that is short of its plan was the last one of a smaller n: it is drawn anew as a whole.
        """
        for result in held:
            position = self._position(result.block)
            if position < len(self._planned) and self._planned[position][2] == result.block.draws:
                self._held.add(position)
                self._ahead[position] = result
        while self.look():
            pass
        if self._in_order:
            self._ahead.clear()
            self._held.clear()
            self._handed = self._counted
        self._skip_held()

    def next_unit(self, ahead: int = 0) -> Block | None:
        """Hand out the next block that is needed, or in mode adaptive one of `ahead` further ones that may be."""
        if self.over or self._handed >= min(self._certain + ahead, len(self._planned)):
            return None
        stage, number, draws = self._planned[self._handed]
        self._handed += 1
        self._skip_held()
        return Block(self.image.image, self.image.key, self.level, stage, number, draws)

    def accept(self, result: BlockCounts) -> None:
        """Take a counted block, which `look` then makes count."""
        if not self.over:
            self._ahead[self._position(result.block)] = result

    def reject(self, block: Block, reason: str) -> bool:
        """No worker can count `block`. Whether that is the end, as it is needed; else `doom` tells when it is."""
        position = self._position(block)
        if position < self._certain:
            return True
        self._doomed[position] = reason
        return False

    def look(self) -> list[BlockCounts]:
        """Make blocks that have come count, and return them: all, or in mode adaptive the one whose turn it is."""
        if self.over or not self._ahead:
            return []
        if self._in_order:
            result = self._ahead.pop(self._counted, None)
            results = [] if result is None else [result]
        else:
            results = list(self._ahead.values())
            self._ahead.clear()
        for result in results:
            self._count(result)
        return results

    def end(self) -> None:
        """It needs nothing more; what was counted ahead is dropped."""
        self.over = True
        self._ahead.clear()

    def counts(self, classes: int) -> ImageCounts:
        """What was counted so far."""
        nothing = np.zeros(classes, dtype=np.int64)
        looks = np.array(self._looks, dtype=np.int64).reshape(-1, 2).T if self._in_order else None
        return ImageCounts(
            self.image.image, self.image.key, self.image.label, self.level,
            self._totals.get(Stage.SELECTION, nothing), self._totals.get(Stage.ESTIMATION, nothing), self._seconds,
            looks,
        )  # fmt: skip

    def _count(self, result: BlockCounts) -> None:
        stage = result.block.stage
        self._totals[stage] = self._totals[stage] + result.counts if stage in self._totals else result.counts
        self._seconds += result.seconds
        self.draws += result.block.draws
        self._counted += 1
        if self._in_order and stage == Stage.ESTIMATION:
            candidate = self._totals[Stage.SELECTION].argmax()
            before = self._looks[-1] if self._looks else (0, 0)
            self._looks.append((before[0] + int(result.counts[candidate]), before[1] + result.block.draws))
            self._certain = self._counted + 1
        if self._counted == len(self._planned):
            self.over = True

    def _position(self, block: Block) -> int:
        return block.number + (0 if block.stage == Stage.SELECTION else self._selection_blocks)

    def _skip_held(self) -> None:
        while self._handed in self._held:
            self._held.remove(self._handed)
            self._handed += 1
