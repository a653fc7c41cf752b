"""Writing a ledger of any kind: one writer, commits at least every second, and results of another run refused."""

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rrcm_dist.certification.ledger.file import LedgerKind, connect, create, read_facts, spoken_errors
from rrcm_dist.certification.ledger.lock import lock_ledger
from rrcm_dist.errors import InvalidInput

COMMIT_SECONDS = 1.0
"""Longest time between commits while results come in; what a kill loses of them is done again."""


class LedgerWriter:
    """A ledger open for writing; a context manager. Other processes may read it meanwhile, none may write."""

    def __init__(
        self, path: str | Path, kind: LedgerKind, identity: Any, facts: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> None:
        """Open the ledger at `path`, made if there is none.

        `identity` is a dataclass of what all results in it share, `facts` are others of the run, its name among them,
        and `settings` those that are kept as they are now, JSON values by name. Raises `InvalidInput` naming what
        differs where the ledger is of another run or kind, and `RunFailure` for a damaged file or one that another
        process writes.
        """
        self.path = Path(path)
        self._kind = kind
        self._own = dict(facts) | asdict(identity)
        self._lock = lock_ledger(self.path)
        try:
            if not self.path.exists():
                create(self.path, kind, self._own)
            self._connection = connect(self.path, write=True, kind=kind)
        except BaseException:
            self._lock.close()
            raise
        self._adopted = False
        try:
            self._adopt(asdict(identity))
            with spoken_errors(self.path):
                self._connection.execute("PRAGMA journal_mode = WAL")
            self._set_facts(settings)
            self._adopted = True
        except BaseException:
            self._end()
            raise
        self._levels: dict[float, int] = {}
        self._hosts: dict[str, int] = {}
        self._committed = time.monotonic()

    def add_images(self, images: Iterable[tuple[int, str, int]]) -> None:
        """Enter images as (sample id, key, label); those already there stay. They need not be done at every level."""
        with spoken_errors(self.path):
            self._begin()
            self._connection.executemany(
                "INSERT INTO images (id, key, label) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING", images
            )
            self.commit()

    def fail(self, level: float, image: int, reason: str) -> None:
        """Note that an image was given up at `level`, and why; what came of it before stays."""
        with spoken_errors(self.path):
            self._begin()
            self._connection.execute(
                f"INSERT OR REPLACE INTO failures ({self._kind.level}, image, reason) VALUES (?, ?, ?)",
                (self._levels[level], image, reason),
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
        """Put every result taken so far where a kill cannot reach it."""
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

    def _check_facts(self, held: Mapping[str, Any]) -> None:
        """A hook: raise `InvalidInput` where the facts of a ledger of this run forbid to go on."""

    def _put(self, statement: str, rows: list[tuple]) -> None:
        """Take results; commits when the last commit is a second old."""
        with spoken_errors(self.path):
            self._begin()
            self._connection.executemany(statement, rows)
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def _adopt(self, asked: Mapping[str, Any]) -> None:
        """Check that what is there is of this run; a ledger without a result becomes this run's."""
        facts = read_facts(self._connection, self.path)
        if not self._has_results():
            self._set_facts(self._own)
            with spoken_errors(self.path):
                self._connection.execute("DELETE FROM failures")
                self._connection.execute("DELETE FROM images")
            return
        differences = [
            f"{fact} {facts[fact]} there, {asked[fact]} here" for fact in asked if facts[fact] != asked[fact]
        ]
        if differences:
            raise InvalidInput(
                f"{self.path} belongs to another run: {'; '.join(differences)}. Ask for the same, or choose another "
                "output folder"
            )
        self._check_facts(facts)

    def _has_results(self, level: float | None = None) -> bool:
        """Whether there is any result, at `level` or at all."""
        kind = self._kind
        where = (
            ""
            if level is None
            else f"WHERE {kind.level} = (SELECT id FROM {kind.levels} AS l WHERE l.{kind.level} = ?)"
        )
        query = f"SELECT EXISTS (SELECT 1 FROM {kind.results} {where})"
        with spoken_errors(self.path):
            return bool(self._connection.execute(query, () if level is None else (level,)).fetchone()[0])

    def _set_facts(self, facts: Mapping[str, Any]) -> None:
        rows = [(fact, json.dumps(value)) for fact, value in facts.items()]
        with spoken_errors(self.path):
            self._connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

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
