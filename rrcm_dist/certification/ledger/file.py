"""The file behind a ledger: kinds of ledgers, their tables, and opening one without ever harming what is there.

Tables (SQLite, write-ahead log; `docs/certification.md` describes the columns), in every kind of ledger:

    facts     name → value as JSON: the run's name, every field of its identity, and what is not of its identity, such
              as progress (of the last or current writer)
    images    one row an image: sample id, key, label
    hosts     names of the machines that worked
    failures  one row an image given up at a level, with the reason; starting again tries it again

and of randomized smoothing (`RunIdentity`; further facts n, radii, the grid of mode adaptive, and its futility rule)

    sigmas    one row a noise level: σ, SHA-256 of its classifier's weights, where that came from
    blocks    one row a block, keyed by (σ, image, stage, number): a block is taken once

A ledger is of one kind, told by its schema; the tables of ℓ∞ verification are in `verification`.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.files import whole_file

APPLICATION = 0x7252434D
"""SQLite's application_id of a ledger: 'rRCM'."""
COMMON_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE images (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, label INTEGER NOT NULL);
CREATE TABLE hosts (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
"""
SMOOTHING_TABLES = """
CREATE TABLE sigmas (id INTEGER PRIMARY KEY, sigma REAL NOT NULL UNIQUE, weights TEXT NOT NULL, source TEXT NOT NULL);
CREATE TABLE blocks (
    sigma INTEGER NOT NULL REFERENCES sigmas, image INTEGER NOT NULL REFERENCES images,
    stage INTEGER NOT NULL, number INTEGER NOT NULL, draws INTEGER NOT NULL, counts BLOB NOT NULL,
    host INTEGER NOT NULL REFERENCES hosts, seconds REAL NOT NULL,
    PRIMARY KEY (sigma, image, stage, number)
) WITHOUT ROWID;
CREATE TABLE failures (
    sigma INTEGER NOT NULL REFERENCES sigmas, image INTEGER NOT NULL REFERENCES images, reason TEXT NOT NULL,
    PRIMARY KEY (sigma, image)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class LedgerKind:
    """What a ledger is of."""

    what: str
    """What it holds, as messages say it."""
    schema: int
    """SQLite's user_version; changes with the tables."""
    tables: str
    """SQL that makes those besides `COMMON_TABLES`."""
    levels: str
    """The table of levels; its column of values, and that of other tables which names a level, is its singular."""
    results: str
    """The table of results, which has the columns `level` and image."""

    @property
    def level(self) -> str:
        """sigma or epsilon."""
        return self.levels.removesuffix("s")


SMOOTHING = LedgerKind("certificates by randomized smoothing", 2, SMOOTHING_TABLES, "sigmas", "blocks")
VERIFICATION_SCHEMA = 3
"""Of `ledger.verification.VERIFICATION`: a program that knows no such ledgers refuses one by it."""
KINDS = {SMOOTHING.schema: SMOOTHING.what, VERIFICATION_SCHEMA: "deterministic ℓ∞ verification"}
"""What is in a ledger, by schema."""


@dataclass(frozen=True)
class RunIdentity:
    """What two sets of counts must share to be counts of one run."""

    seed: int
    n0: int
    alpha: float
    block: int
    """Draws per block."""
    dataset: str
    """Identity of the images (`images.ImageSet.identity`)."""
    classes: int
    image_size: int
    noise: str
    """Kind of device that draws the noise, cpu or cuda: they draw other numbers."""
    precision: str
    """Of the network: fp32 or bf16."""
    mode: str = "fixed"
    """fixed or adaptive: which bound the counts are for, and whether an image may stop before n draws."""
    first_block: int = 0
    """Draws of the first estimation block in mode adaptive; 0 in mode fixed."""
    growth: float = 0.0
    """By which share each estimation block is longer than the one before, in mode adaptive."""


def create(path: Path, kind: LedgerKind, facts: Mapping[str, Any]) -> None:
    """Make an empty ledger; it appears whole."""
    for leftover in (f"{path}-wal", f"{path}-journal"):
        if Path(leftover).exists() and Path(leftover).stat().st_size > 0:
            raise RunFailure(
                f"{leftover} belongs to a ledger that is no longer beside it: bring {path.name} back, or move it away"
            )
    with whole_file(path) as aside, spoken_errors(path):
        aside.unlink(missing_ok=True)
        connection = sqlite3.connect(aside, isolation_level=None)
        try:
            connection.execute("PRAGMA page_size = 8192")
            connection.execute("PRAGMA journal_mode = MEMORY")  # so that a failure leaves no file beside
            connection.executescript(f"BEGIN; {COMMON_TABLES} {kind.tables} COMMIT;")
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {kind.schema}")
            rows = [(fact, json.dumps(value)) for fact, value in facts.items()]
            connection.executemany("INSERT INTO facts VALUES (?, ?)", rows)
        finally:
            connection.close()


def connect(path: Path, write: bool, kind: LedgerKind = SMOOTHING) -> sqlite3.Connection:
    """Open an existing ledger; raises `RunFailure` for a file that is damaged or not a ledger of this schema, and
    `InvalidInput` for a ledger of another kind."""
    if not path.is_file():
        raise InvalidInput(f"there is no ledger at {path}")
    with spoken_errors(path):
        connection = _open(path, write)
        try:
            _check_kind(connection, path, kind, write)
            if write:
                problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                if problem != "ok":
                    raise _damaged(path, problem)
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
    return connection


def read_facts(connection: sqlite3.Connection, path: Path) -> dict:
    """The facts table as a dictionary."""
    with spoken_errors(path):
        return {name: json.loads(value) for name, value in connection.execute("SELECT name, value FROM facts")}


def identity_of(facts: dict) -> RunIdentity:
    """The run identity among the facts."""
    return RunIdentity(**{field: facts[field] for field in RunIdentity.__dataclass_fields__})


@contextmanager
def spoken_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours: what is wrong with `path` and what to do."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
            raise _damaged(path, str(error)) from error
        if name == "SQLITE_FULL":
            raise RunFailure(
                f"the disk is full: {path} was not written; what it held before is safe: make room and run again"
            ) from error
        raise RunFailure(f"{path}: {error} ({name}); what it held before is safe") from error


def _open(path: Path, write: bool) -> sqlite3.Connection:
    if write:
        return sqlite3.connect(path, isolation_level=None, timeout=60)
    location = path.absolute().as_uri()
    connection = sqlite3.connect(f"{location}?mode=ro", uri=True, isolation_level=None, timeout=60)
    try:
        connection.execute("PRAGMA user_version")
    except sqlite3.OperationalError:
        # A folder that cannot be written to has no place for the write-ahead log's index; without a log none is needed.
        connection.close()
        if Path(f"{path}-wal").exists():
            raise
        return sqlite3.connect(f"{location}?immutable=1", uri=True, isolation_level=None)
    return connection


def schema_of(path: Path) -> int:
    """Which kind of ledger, by schema, lies at `path`. Raises as `connect` does, for any schema that is not known."""
    if not path.is_file():
        raise InvalidInput(f"there is no ledger at {path}")
    with spoken_errors(path):
        connection = _open(path, write=False)
        try:
            return _known_schema(connection, path)
        finally:
            connection.close()


def _check_kind(connection: sqlite3.Connection, path: Path, kind: LedgerKind, write: bool) -> None:
    schema = _known_schema(connection, path)
    if schema != kind.schema:
        raise InvalidInput(
            f"{path} is a ledger of {KINDS[schema]}, not of {kind.what}: the two guarantee different things and never "
            f"share a ledger{'; it was left as it is: choose another output folder' if write else ''}"
        )


def _known_schema(connection: sqlite3.Connection, path: Path) -> int:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise RunFailure(f"{path} is not a ledger of certificates; it was left as it is: choose another output folder")
    if schema not in KINDS:
        known = " and ".join(map(str, KINDS))
        raise RunFailure(
            f"{path} is a ledger of schema {schema}, and this program reads schemas {known}; it was left as it is: use "
            "the program that made it, or choose another output folder"
        )
    return int(schema)


def _damaged(path: Path, problem: str) -> RunFailure:
    return RunFailure(
        f"{path} is damaged ({problem}); it was left as it is: restore it from a copy, or move it away to begin anew"
    )
