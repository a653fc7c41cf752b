"""Joining ledgers of one run that were made on different machines: other images, noise levels or blocks in each.

The inputs are read as they stand and never changed; the output appears whole, or not at all.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rrcm_dist.certification.blocks import Stage, spread_counts, unpack_counts
from rrcm_dist.certification.ledger.file import (
    SMOOTHING,
    RunIdentity,
    connect,
    create,
    identity_of,
    read_facts,
    spoken_errors,
)
from rrcm_dist.certification.ledger.reader import LedgerReader
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.files import whole_file

OFFERED = """
CREATE TEMP TABLE offered (
    sigma INTEGER, image INTEGER, stage INTEGER, number INTEGER, file INTEGER, draws INTEGER, counts BLOB, host INTEGER,
    seconds REAL, PRIMARY KEY (sigma, image, stage, number, file)
) WITHOUT ROWID
"""
"""The blocks of all inputs, `file` being the position of the input."""
SETTINGS = ("radii", "adaptive")
"""Facts beside the identity that a ledger keeps: in mode adaptive they tell which images are finished."""


@dataclass(frozen=True)
class Merged:
    """What a merged ledger holds."""

    ledger: Path
    sigmas: int
    images: int
    """Of which there is any block."""
    blocks: int
    repeated: int
    """Blocks of the inputs that another input had, too: they are there once."""


@dataclass(frozen=True)
class _Input:
    path: Path
    connection: sqlite3.Connection
    facts: dict[str, Any]
    classifiers: dict[float, tuple[str, str]]
    """σ → (weights, source), of the levels that there is a block or a failure of."""

    @property
    def identity(self) -> RunIdentity:
        return identity_of(self.facts)


def merge_ledgers(output: Path, inputs: Sequence[Path]) -> Merged:
    """Make the ledger `output` of all that the ledgers `inputs` hold.

    Raises `InvalidInput`, saying what differs and where, unless they are of one run: all of `RunIdentity`, n, the
    weights at each σ, what they say of an image, and the counts of every block that two of them have. Raises
    `RunFailure` for a damaged input.
    """
    check_paths(output, inputs)
    with ExitStack() as stack:
        ledgers = [stack.enter_context(_opened(path)) for path in inputs]
        for other in ledgers[1:]:
            _check_run(ledgers[0], other)
        classifiers = _classifiers(ledgers)
        images = common_images((ledger.path, ledger.connection) for ledger in ledgers)
        with whole_file(output) as aside, spoken_errors(output):
            facts = {fact: ledgers[0].facts[fact] for fact in ("name", "n")}
            create(aside, SMOOTHING, facts | asdict(ledgers[0].identity))
            with closing(sqlite3.connect(aside, isolation_level=None)) as merged:
                offered = _fill(merged, ledgers, classifiers, images)
                (blocks,) = merged.execute("SELECT COUNT(*) FROM blocks").fetchone()
                (with_blocks,) = merged.execute("SELECT COUNT(DISTINCT image) FROM blocks").fetchone()
            _forget_failures_made_good(aside)
    return Merged(output, len(classifiers), with_blocks, blocks, offered - blocks)


def check_paths(output: Path, inputs: Sequence[Path]) -> None:
    """Raise `InvalidInput` unless there is nothing at `output`, and `inputs` are at least two, all different."""
    if output.exists():
        raise InvalidInput(f"{output} is there already and was left as it is: name a new ledger")
    if len({path.resolve() for path in inputs}) < max(len(inputs), 2):
        raise InvalidInput("name at least two different ledgers to merge, each once")


@contextmanager
def _opened(path: Path) -> Iterator[_Input]:
    """A ledger as it stands at this moment."""
    with closing(connect(path, write=False)) as connection:
        with spoken_errors(path):
            connection.execute("BEGIN")
            problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise RunFailure(f"{path} is damaged ({problem}); nothing was merged: restore it from a copy")
            rows = connection.execute(
                "SELECT sigma, weights, source FROM sigmas WHERE EXISTS (SELECT 1 FROM blocks WHERE sigma = sigmas.id) "
                "OR EXISTS (SELECT 1 FROM failures WHERE sigma = sigmas.id)"
            )
            classifiers = {sigma: (weights, source) for sigma, weights, source in rows}
        yield _Input(path, connection, read_facts(connection, path), classifiers)


def _check_run(first: _Input, other: _Input) -> None:
    held, offered = asdict(first.identity), asdict(other.identity)
    if first.identity.mode == "adaptive":
        held |= {fact: first.facts.get(fact) for fact in SETTINGS}
        offered |= {fact: other.facts.get(fact) for fact in SETTINGS}
    differences = [
        f"{fact} is {held[fact]} in {first.path} and {offered[fact]} in {other.path}"
        for fact in held
        if held[fact] != offered[fact]
    ]
    if differences:
        raise InvalidInput(f"these are ledgers of different runs: {'; '.join(differences)}")
    numbers = first.facts["n"], other.facts["n"]
    if numbers[0] != numbers[1]:
        fewer = first if numbers[0] < numbers[1] else other
        raise InvalidInput(
            f"n is {numbers[0]} in {first.path} and {numbers[1]} in {other.path}: bring {fewer.path} to the same n "
            f"first, by `rrcm certify` with its recipe and n={max(numbers)}"
        )


def _classifiers(ledgers: Sequence[_Input]) -> dict[float, tuple[str, str]]:
    """σ → (weights, source) over all inputs, which must agree on the weights."""
    found: dict[float, tuple[str, str, Path]] = {}
    for ledger in ledgers:
        for sigma, (weights, source) in ledger.classifiers.items():
            held, held_source, path = found.setdefault(sigma, (weights, source, ledger.path))
            if held != weights:
                raise InvalidInput(
                    f"the classifiers at sigma {sigma} differ: weights {held[:12]}… from {held_source} in {path}, "
                    f"{weights[:12]}… from {source} in {ledger.path}"
                )
    return {sigma: (weights, source) for sigma, (weights, source, _) in sorted(found.items())}


def common_images(ledgers: Iterable[tuple[Path, sqlite3.Connection]]) -> dict[int, tuple[str, int]]:
    """Sample id → (key, label) over all inputs, which must agree on them."""
    found: dict[int, tuple[str, int]] = {}
    for path, connection in ledgers:
        for image, key, label in connection.execute("SELECT id, key, label FROM images"):
            if found.setdefault(image, (key, label)) != (key, label):
                raise InvalidInput(
                    f"image {image} is {found[image][0]} of label {found[image][1]} in an earlier ledger, and {key} of "
                    f"label {label} in {path}"
                )
    return found


def _fill(
    merged: sqlite3.Connection,
    ledgers: Sequence[_Input],
    classifiers: Mapping[float, tuple[str, str]],
    images: Mapping[int, tuple[str, int]],
) -> int:
    """Put everything into the empty ledger `merged`; returns how many blocks the inputs have together."""
    merged.execute("PRAGMA foreign_keys = ON")
    merged.execute("PRAGMA journal_mode = MEMORY")  # the file is thrown away if anything fails
    merged.execute(OFFERED)
    merged.execute("BEGIN")
    settings = [(fact, json.dumps(ledgers[0].facts[fact])) for fact in SETTINGS if fact in ledgers[0].facts]
    merged.executemany("INSERT INTO facts VALUES (?, ?)", settings)
    levels = {sigma: number for number, sigma in enumerate(classifiers, start=1)}
    merged.executemany("INSERT INTO sigmas VALUES (?, ?, ?, ?)", [(levels[s], s, *classifiers[s]) for s in levels])
    merged.executemany("INSERT INTO images VALUES (?, ?, ?)", [(i, *images[i]) for i in sorted(images)])
    offered = 0
    for file, ledger in enumerate(ledgers):
        names = ledger.connection.execute("SELECT name FROM hosts")
        merged.executemany("INSERT OR IGNORE INTO hosts (name) VALUES (?)", names)
        hosts = {name: number for number, name in merged.execute("SELECT id, name FROM hosts")}
        rows = _blocks(ledger, file, levels, hosts)
        offered += merged.executemany("INSERT INTO offered VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows).rowcount
        merged.executemany("INSERT OR IGNORE INTO failures VALUES (?, ?, ?)", _failures(ledger, levels))
    _check_repeated(merged, ledgers)
    merged.execute(
        "INSERT INTO blocks SELECT sigma, image, stage, number, draws, counts, host, seconds FROM offered "
        "WHERE true ORDER BY sigma, image, stage, number, draws DESC, file ON CONFLICT DO NOTHING"
    )
    merged.execute("COMMIT")
    return offered


def _blocks(ledger: _Input, file: int, levels: Mapping[float, int], hosts: Mapping[str, int]) -> Iterator[tuple]:
    """Rows of `offered`."""
    query = (
        "SELECT sigmas.sigma, image, stage, number, draws, counts, hosts.name, seconds FROM blocks "
        "JOIN sigmas ON sigmas.id = blocks.sigma JOIN hosts ON hosts.id = blocks.host "
        "ORDER BY blocks.sigma, image, stage, number"
    )
    with spoken_errors(ledger.path):
        for sigma, image, stage, number, draws, packed, host, seconds in ledger.connection.execute(query):
            try:
                classes, counts = unpack_counts(packed)
            except ValueError as error:
                raise RunFailure(f"{ledger.path}: block {number} of image {image} is damaged: {error}") from error
            if int(counts.sum()) != draws or classes.max(initial=0) >= ledger.identity.classes:
                raise RunFailure(f"{ledger.path}: block {number} of image {image} has not the counts of {draws} draws")
            yield levels[sigma], image, stage, number, file, draws, packed, hosts[host], seconds


def _failures(ledger: _Input, levels: Mapping[float, int]) -> list[tuple[int, int, str]]:
    """Rows of the table `failures`."""
    query = "SELECT sigmas.sigma, image, reason FROM failures JOIN sigmas ON sigmas.id = failures.sigma"
    with spoken_errors(ledger.path):
        return [(levels[sigma], image, reason) for sigma, image, reason in ledger.connection.execute(query)]


def _check_repeated(merged: sqlite3.Connection, ledgers: Sequence[_Input]) -> None:
    """Raise `InvalidInput` for a block of which two inputs tell different counts.

    One of fewer draws (the last of a smaller n) holds the first draws of the longer one, so no class more often.
    """
    different = merged.execute(
        "SELECT sigmas.sigma, a.image, a.stage, a.number, a.counts, b.counts, a.file, b.file, one.name, other.name "
        "FROM offered AS a JOIN offered AS b USING (sigma, image, stage, number) "
        "JOIN sigmas ON sigmas.id = a.sigma "
        "JOIN hosts AS one ON one.id = a.host JOIN hosts AS other ON other.id = b.host "
        "WHERE a.file < b.file AND a.counts <> b.counts"
    )
    for sigma, image, stage, number, packed, other_packed, *where in different:
        one, other = (spread_counts(counts, ledgers[0].identity.classes) for counts in (packed, other_packed))
        if (one <= other).all() or (one >= other).all():
            continue
        chosen = f" (most often class {one.argmax()} and {other.argmax()})" if stage == Stage.SELECTION else ""
        file, other_file, host, other_host = where
        raise InvalidInput(
            f"{Stage(stage).name.lower()} block {number} of image {image} at sigma {sigma} has other counts in "
            f"{ledgers[file].path}, counted by {host}, than in {ledgers[other_file].path}, counted by {other_host}"
            f"{chosen}: one of the two counts wrongly, or rounds otherwise; leave out one ledger, and certify its "
            "images again where the other was made"
        )


def _forget_failures_made_good(path: Path) -> None:
    """Images that one input gave up and others finished are no failures."""
    with LedgerReader(path) as reader:
        failed = {c.sigma: {failure.image for failure in reader.failures(c.sigma)} for c in reader.classifiers()}
        finished = [
            (sigma, counts.image)
            for sigma, images in failed.items()
            if images
            for counts in reader.counts(sigma)
            if counts.image in images
        ]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "DELETE FROM failures WHERE sigma = (SELECT id FROM sigmas WHERE sigmas.sigma = ?) AND image = ?", finished
        )
