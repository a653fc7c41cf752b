"""Reading a ledger, also while it is being written: block counts summed, then bounded. Knows nothing of torch."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from rrcm_dist.certification.blocks import Stage, unpack_counts
from rrcm_dist.certification.ledger.file import RunIdentity, connect, identity_of, read_facts, spoken_errors
from rrcm_dist.certification.plan import planned_draws
from rrcm_dist.certification.statistics.certificates import Certificate, ImageCounts, certify_counts
from rrcm_dist.errors import InvalidInput, RunFailure


@dataclass(frozen=True)
class StoredClassifier:
    """Whose counts a ledger holds at one noise level."""

    sigma: float
    weights: str
    """SHA-256 of the weights."""
    source: str
    """Where the classifier came from."""


class LedgerReader:
    """A ledger as it stood when opened; a context manager. What is written afterwards is not seen.

    Raises `InvalidInput` where there is none, and `RunFailure` for a damaged file or one of another schema.
    """

    identity: RunIdentity
    """What the run is."""
    name: str
    """The run's name."""
    n: int
    """Estimation draws per image."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._connection = connect(self.path, write=False)
        with spoken_errors(self.path):
            self._connection.execute("BEGIN")
        facts = read_facts(self._connection, self.path)
        self.identity, self.name, self.n = identity_of(facts), facts["name"], facts["n"]

    def classifiers(self) -> list[StoredClassifier]:
        """Every noise level of the ledger, ascending."""
        with spoken_errors(self.path):
            rows = self._connection.execute("SELECT sigma, weights, source FROM sigmas ORDER BY sigma").fetchall()
        return [StoredClassifier(*row) for row in rows]

    def counts(self, sigma: float, n: int | None = None) -> Iterator[ImageCounts]:
        """The summed counts of every image that has all its draws at `sigma`, by sample id.

        `n` reads fewer estimation draws than the ledger's n, the first ones: a multiple of its block.
        """
        block = self.identity.block
        if n is not None and n != self.n and (n > self.n or n % block or n < 1):
            raise InvalidInput(f"{self.path} can be read at n {self.n}, or at a smaller multiple of {block}; given {n}")
        planned = planned_draws(self.identity.n0, n or self.n, block)
        with spoken_errors(self.path):
            for _, rows in groupby(self._rows(sigma), key=lambda row: row[0]):
                summed = self._sum(list(rows), planned, sigma)
                if summed:
                    yield summed

    def certificates(self, sigma: float, alpha: float | None = None, n: int | None = None) -> list[Certificate]:
        """The certificates at `sigma`, by sample id; `alpha` bounds the same counts at another confidence."""
        return certify_counts(list(self.counts(sigma, n)), self.identity.alpha if alpha is None else alpha)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rows(self, sigma: float) -> sqlite3.Cursor:
        return self._connection.execute(
            "SELECT blocks.image, key, label, stage, number, draws, counts, seconds FROM blocks "
            "JOIN images ON images.id = blocks.image WHERE sigma = (SELECT id FROM sigmas WHERE sigmas.sigma = ?) "
            "ORDER BY blocks.image, stage, number",
            (sigma,),
        )

    def _sum(self, rows: list[tuple], planned: dict[Stage, list[int]], sigma: float) -> ImageCounts | None:
        """Sum the planned blocks among the rows of one image; None where some are missing."""
        image, key, label = rows[0][:3]
        totals = {stage: np.zeros(self.identity.classes, dtype=np.int64) for stage in planned}
        found, seconds = 0, 0.0
        for _, _, _, stage, number, draws, packed, block_seconds in rows:
            if number >= len(planned[stage]) or draws != planned[stage][number]:
                continue
            try:
                classes, counts = unpack_counts(packed)
                totals[stage][classes] += counts
            except (ValueError, IndexError) as error:
                raise RunFailure(f"{self.path}: block {number} of image {image} is damaged: {error}") from error
            found += 1
            seconds += block_seconds
        if found < sum(len(sizes) for sizes in planned.values()):
            return None
        if any(int(totals[stage].sum()) != sum(planned[stage]) for stage in planned):
            raise RunFailure(f"{self.path}: the counts of image {image} do not sum to its draws; the file is damaged")
        return ImageCounts(image, key, label, sigma, totals[Stage.SELECTION], totals[Stage.ESTIMATION], seconds)
