"""Reading a ledger, also while it is being written: block counts summed, then bounded. Knows nothing of torch."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from rrcm_dist.certification.blocks import Stage, unpack_counts
from rrcm_dist.certification.ledger.file import SMOOTHING, RunIdentity, identity_of, spoken_errors
from rrcm_dist.certification.ledger.reading import OpenLedger
from rrcm_dist.certification.plan import PlannedBlocks, planned_blocks
from rrcm_dist.certification.statistics.certificates import (
    Certificate,
    ImageCounts,
    certify_counts,
    last_lower_bounds,
)
from rrcm_dist.certification.statistics.stopping import AdaptiveRule
from rrcm_dist.errors import InvalidInput, RunFailure


@dataclass(frozen=True)
class StoredClassifier:
    """Whose counts a ledger holds at one noise level."""

    sigma: float
    weights: str
    """SHA-256 of the weights."""
    source: str
    """Where the classifier came from."""


class LedgerReader(OpenLedger):
    """A ledger of randomized smoothing (see `OpenLedger`)."""

    identity: RunIdentity
    """What the run is."""
    n: int
    """Estimation draws per image; in mode adaptive the most of them."""
    mode: str
    """fixed or adaptive."""
    radii: tuple[float, ...]
    """The grid of the recipe; empty where the ledger was made without one."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, SMOOTHING)
        self.identity, self.n = identity_of(self._facts), self._facts["n"]
        self.mode, self.radii = self.identity.mode, tuple(self._facts.get("radii", ()))

    def classifiers(self) -> list[StoredClassifier]:
        """Every noise level of the ledger, ascending."""
        with spoken_errors(self.path):
            rows = self._connection.execute("SELECT sigma, weights, source FROM sigmas ORDER BY sigma").fetchall()
        return [StoredClassifier(*row) for row in rows]

    def draws(self) -> int:
        """Draws counted until now, at all noise levels."""
        with spoken_errors(self.path):
            return int(self._connection.execute("SELECT coalesce(sum(draws), 0) FROM blocks").fetchone()[0])

    def counts(self, sigma: float, n: int | None = None) -> Iterator[ImageCounts]:
        """The summed counts of every image that needs no further draw at `sigma`, by sample id.

        `n` reads fewer estimation draws than the ledger's n, the first ones: a multiple of its block. In mode adaptive
        it cannot be chosen.
        """
        if self.mode == "adaptive":
            if n not in (None, self.n):
                raise InvalidInput(f"{self.path} is of mode adaptive: the draws of an image are those it stopped at")
            yield from self._stopped(sigma)
            return
        block = self.identity.block
        if n is not None and n != self.n and (n > self.n or n % block or n < 1):
            raise InvalidInput(f"{self.path} can be read at n {self.n}, or at a smaller multiple of {block}; given {n}")
        planned = self._planned(n or self.n)
        yield from (summed for found, summed in self._summed(sigma, planned) if found == len(planned))

    def certificates(
        self, sigma: float, alpha: float | None = None, n: int | None = None, two_sided: bool = False
    ) -> list[Certificate]:
        """The certificates at `sigma`, by sample id; `alpha` bounds the same counts at another confidence.

        `two_sided` bounds the runner-up besides, of the same α; in mode fixed alone.
        """
        return certify_counts(list(self.counts(sigma, n)), self.identity.alpha if alpha is None else alpha, two_sided)

    def _rows(self, sigma: float) -> sqlite3.Cursor:
        return self._connection.execute(
            "SELECT blocks.image, key, label, stage, number, draws, counts, seconds FROM blocks "
            "JOIN images ON images.id = blocks.image WHERE sigma = (SELECT id FROM sigmas WHERE sigmas.sigma = ?) "
            "ORDER BY blocks.image, stage, number",
            (sigma,),
        )

    def _planned(self, n: int) -> PlannedBlocks:
        identity = self.identity
        return planned_blocks(identity.n0, n, identity.block, identity.first_block, identity.growth)

    def _stopped(self, sigma: float) -> Iterator[ImageCounts]:
        """The images that the stopping rule lets go, of those with an estimation block."""
        looked = [summed for _, summed in self._summed(sigma, self._planned(self.n)) if summed.looks is not None]
        if not looked:
            return
        rule = AdaptiveRule.of(sigma, self.radii, self.n, self.identity.alpha, **self._facts["adaptive"])
        trials = np.array([image.estimation.sum() for image in looked])
        successes = np.array([image.estimation[image.candidate] for image in looked])
        finished = rule.finished(successes, trials, last_lower_bounds(looked, self.identity.alpha))
        yield from (image for image, ended in zip(looked, finished, strict=True) if ended)

    def _summed(self, sigma: float, planned: PlannedBlocks) -> Iterator[tuple[int, ImageCounts]]:
        """Every image at `sigma` with a planned block: (how many of its planned blocks there are, their sum).

        In mode adaptive only those before the first gap count.
        """
        positions = {block: position for position, block in enumerate(planned)}
        with spoken_errors(self.path):
            for _, rows in groupby(self._rows(sigma), key=lambda row: row[0]):
                yield self._sum(list(rows), positions, sigma)

    def _sum(
        self, rows: list[tuple], positions: dict[tuple[Stage, int, int], int], sigma: float
    ) -> tuple[int, ImageCounts]:
        image, key, label = rows[0][:3]
        totals = {stage: np.zeros(self.identity.classes, dtype=np.int64) for stage in Stage}
        found, drawn, seconds, looks = 0, dict.fromkeys(Stage, 0), 0.0, []
        for _, _, _, stage, number, draws, packed, block_seconds in rows:
            position = positions.get((stage, number, draws))
            if position is None or (self.mode == "adaptive" and position != found):
                continue
            try:
                classes, counts = unpack_counts(packed)
                totals[stage][classes] += counts
            except (ValueError, IndexError) as error:
                raise RunFailure(f"{self.path}: block {number} of image {image} is damaged: {error}") from error
            found, seconds = found + 1, seconds + block_seconds
            drawn[stage] += draws
            if self.mode == "adaptive" and stage == Stage.ESTIMATION:
                looks.append((totals[stage][totals[Stage.SELECTION].argmax()], drawn[stage]))
        if any(int(totals[stage].sum()) != drawn[stage] for stage in Stage):
            raise RunFailure(f"{self.path}: the counts of image {image} do not sum to its draws; the file is damaged")
        return found, ImageCounts(
            image, key, label, sigma, totals[Stage.SELECTION], totals[Stage.ESTIMATION], seconds,
            np.array(looks, dtype=np.int64).T if looks else None,
        )  # fmt: skip
