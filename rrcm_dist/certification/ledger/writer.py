"""The ledger of randomized smoothing: takes each block once, and refuses counts of another classifier."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from rrcm_dist.certification.blocks import Block, BlockCounts, Stage, pack_counts, spread_counts
from rrcm_dist.certification.ledger.file import SMOOTHING, RunIdentity, spoken_errors
from rrcm_dist.certification.ledger.writing import LedgerWriter
from rrcm_dist.errors import InvalidInput, RunFailure


class Ledger(LedgerWriter):
    """Block counts, open for writing."""

    def __init__(
        self,
        path: str | Path,
        identity: RunIdentity,
        n: int,
        name: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """As `LedgerWriter`; `n` is the (largest) number of estimation draws per image, at least as many as before."""
        self.identity, self._n = identity, n
        self._grown_n: int | None = None
        super().__init__(path, SMOOTHING, identity, {"name": name, "n": n}, settings or {})

    def set_classifier(self, sigma: float, weights: str, source: str) -> None:
        """State whose counts those at `sigma` are: `weights` is the SHA-256 of the classifier's weights.

        Raises `InvalidInput` where the counts already there are another classifier's.
        """
        with spoken_errors(self.path):
            held = self._connection.execute("SELECT weights, source FROM sigmas WHERE sigma = ?", (sigma,)).fetchone()
            if held and held[0] != weights and self._has_results(sigma):
                raise InvalidInput(
                    f"{self.path} holds counts of another classifier at sigma {sigma}: weights {held[0][:12]}… from "
                    f"{held[1]}, now {weights[:12]}… from {source}; choose another output folder"
                )
            self._connection.execute(
                "INSERT INTO sigmas (sigma, weights, source) VALUES (?, ?, ?) "
                "ON CONFLICT (sigma) DO UPDATE SET weights = excluded.weights, source = excluded.source",
                (sigma, weights, source),
            )
            row = self._connection.execute("SELECT id FROM sigmas WHERE sigma = ?", (sigma,)).fetchone()
        self._levels[sigma] = row[0]

    def blocks(self, sigma: float) -> Iterator[tuple[int, list[BlockCounts]]]:
        """Every block held at `sigma`, image by image in ascending order; of an image, by stage and number."""
        query = (
            "SELECT image, key, stage, number, draws, counts, hosts.name, seconds FROM blocks "
            "JOIN images ON images.id = blocks.image JOIN hosts ON hosts.id = blocks.host "
            "WHERE sigma = ? ORDER BY image, stage, number"
        )
        with spoken_errors(self.path):
            rows = self._connection.execute(query, (self._levels[sigma],))
            for image, of_image in groupby(rows, key=lambda row: row[0]):
                yield image, [self._counted(sigma, *row) for row in of_image]

    def add(self, results: Iterable[BlockCounts]) -> None:
        """Take counted blocks. One that is already there with as many draws is left as it is.

        The image and the classifier of a block must have been entered. Commits when the last commit is a second old.
        """
        rows = [self._row(result) for result in results]
        if self._grown_n is not None:  # not before: until a block of the larger n comes, the smaller one is complete
            with spoken_errors(self.path):
                self._begin()
            self._set_facts({"n": self._grown_n})
            self._grown_n = None
        self._put(
            "INSERT INTO blocks (sigma, image, stage, number, draws, counts, host, seconds) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET draws = excluded.draws, "
            "counts = excluded.counts, host = excluded.host, seconds = excluded.seconds "
            "WHERE excluded.draws > blocks.draws",
            rows,
        )

    def _check_facts(self, held: Mapping[str, Any]) -> None:
        if self._n < held["n"]:
            raise InvalidInput(
                f"{self.path} was begun with n {held['n']} draws per image, and n {self._n} was asked for: n may grow, "
                "not shrink"
            )
        self._grown_n = self._n if self._n > held["n"] else None

    def _row(self, result: BlockCounts) -> tuple:
        block = result.block
        if len(result.counts) != self.identity.classes or int(result.counts.sum()) != block.draws:
            raise RunFailure(
                f"{result.host} returned {int(result.counts.sum())} draws of {len(result.counts)} classes for {block}, "
                f"which has {block.draws} of {self.identity.classes}"
            )
        return (
            self._levels[block.sigma], block.image, int(block.stage), block.number, block.draws,
            pack_counts(result.counts), self._host(result.host), result.seconds,
        )  # fmt: skip

    def _counted(
        self,
        sigma: float,
        image: int,
        key: str,
        stage: int,
        number: int,
        draws: int,
        packed: bytes,
        host: str,
        seconds: float,
    ) -> BlockCounts:
        block = Block(image, key, sigma, Stage(stage), number, draws)
        try:
            return BlockCounts(block, spread_counts(packed, self.identity.classes), host, seconds)
        except (ValueError, IndexError) as error:
            raise RunFailure(f"{self.path}: block {number} of image {image} is damaged: {error}") from error
