"""Joining ledgers of one ℓ∞ verification that were made on different machines: other images or other ε in each.

The inputs are read as they stand and never changed; the output appears whole, or not at all.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

from rrcm_dist.certification.ledger.file import connect, create, read_facts, spoken_errors
from rrcm_dist.certification.ledger.merge import check_paths, common_images
from rrcm_dist.certification.ledger.verification import VERIFICATION, VerificationIdentity, VerificationReader
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.files import whole_file

ROWS = (
    "SELECT epsilons.epsilon, image, prediction, margin, attack, hosts.name, seconds FROM verifications "
    "JOIN epsilons ON epsilons.id = verifications.epsilon JOIN hosts ON hosts.id = verifications.host"
)
FAILURES = "SELECT epsilons.epsilon, image, reason FROM failures JOIN epsilons ON epsilons.id = failures.epsilon"


@dataclass(frozen=True)
class MergedVerifications:
    """What a merged ledger holds."""

    ledger: Path
    epsilons: int
    verifications: int
    """Results: of one image at one ε each."""
    repeated: int
    """Results of the inputs that another input had, too: they are there once."""


def merge_verifications(output: Path, inputs: Sequence[Path]) -> MergedVerifications:
    """Make the ledger `output` of all that the ledgers `inputs` hold.

    Raises `InvalidInput`, saying what differs and where, unless they are of one verification: all of
    `VerificationIdentity`, what they say of an image, and every result that two of them have. A ledger of randomized
    smoothing among them is refused. Raises `RunFailure` for a damaged input.
    """
    check_paths(output, inputs)
    with ExitStack() as stack:
        ledgers = [(path, stack.enter_context(_opened(path))) for path in inputs]
        facts = read_facts(ledgers[0][1], inputs[0])
        _check_run(inputs)
        images = common_images(ledgers)
        with whole_file(output) as aside, spoken_errors(output):
            create(aside, VERIFICATION, {fact: value for fact, value in facts.items() if fact != "progress"})
            with closing(sqlite3.connect(aside, isolation_level=None)) as merged:
                merged.execute("PRAGMA foreign_keys = ON")
                merged.execute("PRAGMA journal_mode = MEMORY")  # the file is thrown away if anything fails
                merged.execute("BEGIN")
                merged.executemany("INSERT INTO images VALUES (?, ?, ?)", [(i, *images[i]) for i in sorted(images)])
                offered = sum(_take(merged, path, connection) for path, connection in ledgers)
                # Images that one input gave up and others finished are no failures.
                merged.execute(
                    "DELETE FROM failures WHERE EXISTS (SELECT 1 FROM verifications AS v "
                    "WHERE v.epsilon = failures.epsilon AND v.image = failures.image)"
                )
                merged.execute("COMMIT")
                (held,) = merged.execute("SELECT count(*) FROM verifications").fetchone()
                (epsilons,) = merged.execute("SELECT count(*) FROM epsilons").fetchone()
    return MergedVerifications(output, epsilons, held, offered - held)


def _opened(path: Path) -> closing[sqlite3.Connection]:
    """A ledger as it stands at this moment."""
    connection = connect(path, write=False, kind=VERIFICATION)
    with spoken_errors(path):
        connection.execute("BEGIN")
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        connection.close()
        raise RunFailure(f"{path} is damaged ({problem}); nothing was merged: restore it from a copy")
    return closing(connection)


def _check_run(inputs: Sequence[Path]) -> None:
    identities: list[VerificationIdentity] = []
    for path in inputs:
        with VerificationReader(path) as reader:
            identities.append(reader.identity)
    first = asdict(identities[0])
    for path, identity in zip(inputs[1:], identities[1:], strict=True):
        other = asdict(identity)
        differences = [
            f"{fact} is {first[fact]} in {inputs[0]} and {other[fact]} in {path}"
            for fact in first
            if first[fact] != other[fact]
        ]
        if differences:
            raise InvalidInput(f"these are ledgers of different verifications: {'; '.join(differences)}")


def _take(merged: sqlite3.Connection, path: Path, ledger: sqlite3.Connection) -> int:
    """Put all that `ledger` holds into `merged`; returns how many results that are."""
    with spoken_errors(path):
        rows, failures = ledger.execute(ROWS).fetchall(), ledger.execute(FAILURES).fetchall()
        radii, hosts = (
            ledger.execute("SELECT epsilon FROM epsilons").fetchall(),
            ledger.execute("SELECT name FROM hosts"),
        )
        merged.executemany("INSERT OR IGNORE INTO hosts (name) VALUES (?)", hosts)
    merged.executemany("INSERT OR IGNORE INTO epsilons (epsilon) VALUES (?)", radii)
    levels = dict(merged.execute("SELECT epsilon, id FROM epsilons").fetchall())
    names = dict(merged.execute("SELECT name, id FROM hosts").fetchall())
    for epsilon, image, prediction, margin, attack, host, seconds in rows:
        held = merged.execute(
            "SELECT prediction, margin, attack FROM verifications WHERE epsilon = ? AND image = ?",
            (levels[epsilon], image),
        ).fetchone()
        if held is None:
            row = (levels[epsilon], image, prediction, margin, attack, names[host], seconds)
            merged.execute("INSERT INTO verifications VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        elif held != (prediction, margin, attack):
            raise InvalidInput(
                f"image {image} at epsilon {epsilon:g} has other margins in {path}, computed by {host}, than in an "
                f"earlier ledger: {margin} and {attack} instead of {held[1]} and {held[2]}: the two machines round "
                "otherwise, or one computed wrongly; leave out one ledger, and verify its images again where the other "
                "was made"
            )
    given_up = [(levels[epsilon], image, reason) for epsilon, image, reason in failures]
    merged.executemany("INSERT OR IGNORE INTO failures VALUES (?, ?, ?)", given_up)
    return len(rows)
