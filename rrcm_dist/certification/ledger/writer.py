"""The ledger's one writer: takes each block once, commits at least every second, and refuses counts of another run."""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rrcm_dist.certification.blocks import Block, BlockCounts, Stage, pack_counts, spread_counts
from rrcm_dist.certification.ledger.file import RunIdentity, connect, create, identity_of, read_facts, spoken_errors
from rrcm_dist.certification.ledger.lock import lock_ledger
from rrcm_dist.errors import InvalidInput, RunFailure

COMMIT_SECONDS = 1.0
"""Longest time between commits while blocks come in; what a kill loses of them is drawn again."""


class Ledger:
    """A ledger open for writing; a context manager. Other processes may read it meanwhile, none may write."""

    def __init__(
        self,
        path: str | Path,
        identity: RunIdentity,
        n: int,
        name: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the ledger at `path`, made if there is none.

        `n` is the (largest) number of estimation draws per image, at least as many as before. `settings` are facts that
        may change from one start to the next and are kept as they are now, JSON values by name. Raises `InvalidInput`
        naming what differs where the ledger is of another run, and `RunFailure` for a damaged file or one that another
        process writes.
        """
        self.path = Path(path)
        self.identity = identity
        self._lock = lock_ledger(self.path)
        try:
            if not self.path.exists():
                create(self.path, identity, name, n)
            self._connection = connect(self.path, write=True)
        except BaseException:
            self._lock.close()
            raise
        self._grown_n: int | None = None
        self._adopted = False
        try:
            self._adopt(n, name)
            with spoken_errors(self.path):
                self._connection.execute("PRAGMA journal_mode = WAL")
            self._set_facts(dict(settings or {}))
            self._adopted = True
        except BaseException:
            self._end()
            raise
        self._sigmas: dict[float, int] = {}
        self._hosts: dict[str, int] = {}
        self._committed = time.monotonic()

    def set_classifier(self, sigma: float, weights: str, source: str) -> None:
        """State whose counts those at `sigma` are: `weights` is the SHA-256 of the classifier's weights.

        Raises `InvalidInput` where the counts already there are another classifier's.
        """
        with spoken_errors(self.path):
            held = self._connection.execute("SELECT weights, source FROM sigmas WHERE sigma = ?", (sigma,)).fetchone()
            if held and held[0] != weights and self._has_blocks(sigma):
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
        self._sigmas[sigma] = row[0]

    def add_images(self, images: Iterable[tuple[int, str, int]]) -> None:
        """Enter images as (sample id, key, label); those already there stay. They need not be certified at every σ."""
        with spoken_errors(self.path):
            self._begin()
            self._connection.executemany(
                "INSERT INTO images (id, key, label) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING", images
            )
            self.commit()

    def blocks(self, sigma: float) -> Iterator[tuple[int, list[BlockCounts]]]:
        """Every block held at `sigma`, image by image in ascending order; of an image, by stage and number."""
        query = (
            "SELECT image, key, stage, number, draws, counts, hosts.name, seconds FROM blocks "
            "JOIN images ON images.id = blocks.image JOIN hosts ON hosts.id = blocks.host "
            "WHERE sigma = ? ORDER BY image, stage, number"
        )
        with spoken_errors(self.path):
            rows = self._connection.execute(query, (self._sigmas[sigma],))
            for image, of_image in groupby(rows, key=lambda row: row[0]):
                yield image, [self._counted(sigma, *row) for row in of_image]

    def add(self, results: Iterable[BlockCounts]) -> None:
        """Take counted blocks. One that is already there with as many draws is left as it is.

        The image and the classifier of a block must have been entered. Commits when the last commit is a second old.
        """
        rows = [self._row(result) for result in results]
        with spoken_errors(self.path):
            self._begin()
            if (
                self._grown_n is not None
            ):  # not before: until a block of the larger n comes, the smaller one is complete
                self._set_facts({"n": self._grown_n})
                self._grown_n = None
            self._connection.executemany(
                "INSERT INTO blocks (sigma, image, stage, number, draws, counts, host, seconds) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET draws = excluded.draws, "
                "counts = excluded.counts, host = excluded.host, seconds = excluded.seconds "
                "WHERE excluded.draws > blocks.draws",
                rows,
            )
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def fail(self, sigma: float, image: int, reason: str) -> None:
        """Note that an image was given up at `sigma`, and why; what was counted of it stays."""
        with spoken_errors(self.path):
            self._begin()
            self._connection.execute(
                "INSERT OR REPLACE INTO failures (sigma, image, reason) VALUES (?, ?, ?)",
                (self._sigmas[sigma], image, reason),
            )

    def forgive(self) -> None:
        """Forget all failures: these images are tried again."""
        with spoken_errors(self.path):
            self._begin()
            self._connection.execute("DELETE FROM failures")

    def set_progress(self, progress: Mapping[str, Any]) -> None:
        """Note where the writing process stands, JSON values by name, for whoever reads the ledger meanwhile."""
        with spoken_errors(self.path):
            self._begin()
        self._set_facts({"progress": dict(progress)})

    def commit(self) -> None:
        """Put every block taken so far where a kill cannot reach it."""
        with spoken_errors(self.path):
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")
        self._committed = time.monotonic()

    def close(self) -> None:
        """Commit and let go of the file."""
        try:
            self.commit()
        finally:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _adopt(self, n: int, name: str) -> None:
        """Check that what is there is of this run; a ledger without a block becomes this run's."""
        facts = read_facts(self._connection, self.path)
        if not self._has_blocks():
            self._set_facts({"name": name, "n": n, **asdict(self.identity)})
            with spoken_errors(self.path):
                self._connection.execute("DELETE FROM failures")
                self._connection.execute("DELETE FROM images")
            return
        held, asked = asdict(identity_of(facts)), asdict(self.identity)
        differences = [f"{fact} {held[fact]} there, {asked[fact]} here" for fact in held if held[fact] != asked[fact]]
        if differences:
            raise InvalidInput(
                f"{self.path} belongs to another run: {'; '.join(differences)}. Ask for the same, or choose another "
                "output folder"
            )
        if n < facts["n"]:
            raise InvalidInput(
                f"{self.path} was begun with n {facts['n']} draws per image, and n {n} was asked for: n may grow, "
                "not shrink"
            )
        self._grown_n = n if n > facts["n"] else None

    def _has_blocks(self, sigma: float | None = None) -> bool:
        """Whether there is any block, at `sigma` or at all."""
        level = "" if sigma is None else "WHERE sigma = (SELECT id FROM sigmas WHERE sigmas.sigma = ?)"
        query = f"SELECT EXISTS (SELECT 1 FROM blocks {level})"
        with spoken_errors(self.path):
            return bool(self._connection.execute(query, () if sigma is None else (sigma,)).fetchone()[0])

    def _set_facts(self, facts: dict[str, Any]) -> None:
        rows = [(fact, json.dumps(value)) for fact, value in facts.items()]
        with spoken_errors(self.path):
            self._connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def _row(self, result: BlockCounts) -> tuple:
        block = result.block
        if len(result.counts) != self.identity.classes or int(result.counts.sum()) != block.draws:
            raise RunFailure(
                f"{result.host} returned {int(result.counts.sum())} draws of {len(result.counts)} classes for {block}, "
                f"which has {block.draws} of {self.identity.classes}"
            )
        return (
            self._sigmas[block.sigma], block.image, int(block.stage), block.number, block.draws,
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

    def _host(self, name: str) -> int:
        if name not in self._hosts:
            with spoken_errors(self.path):
                self._begin()
                self._connection.execute("INSERT OR IGNORE INTO hosts (name) VALUES (?)", (name,))
                row = self._connection.execute("SELECT id FROM hosts WHERE name = ?", (name,)).fetchone()
            self._hosts[name] = row[0]
        return self._hosts[name]

    def _begin(self) -> None:
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")

    def _leave_one_file(self) -> None:
        """Do without the write-ahead log from now on, unless somebody reads just now; a refused one stays as it is."""
        with suppress(sqlite3.OperationalError):
            self._connection.execute("PRAGMA busy_timeout = 0")
            self._connection.execute("PRAGMA journal_mode = DELETE")

    def _end(self) -> None:
        try:
            with spoken_errors(self.path):
                if self._adopted:
                    self._leave_one_file()
                self._connection.close()
        finally:
            self._lock.close()
