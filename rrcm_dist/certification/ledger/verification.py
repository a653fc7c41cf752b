"""Ledgers of deterministic ℓ∞ verification: their tables, their writer, their reader. Knows nothing of torch.

Besides the tables that every ledger has (see `file`):

    epsilons       one row a radius
    verifications  one row an image and ε: class of the clean image, the margin's lower bound, the least margin found

Facts are the run's name, `source` (where the network came from) and every field of `VerificationIdentity`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rrcm_dist.certification.ledger.file import KINDS, VERIFICATION_SCHEMA, LedgerKind, spoken_errors
from rrcm_dist.certification.ledger.reading import OpenLedger
from rrcm_dist.certification.ledger.writing import LedgerWriter

if TYPE_CHECKING:
    from rrcm_dist.certification.verification.images import VerifiedImage

TABLES = """
CREATE TABLE epsilons (id INTEGER PRIMARY KEY, epsilon REAL NOT NULL UNIQUE);
CREATE TABLE verifications (
    epsilon INTEGER NOT NULL REFERENCES epsilons, image INTEGER NOT NULL REFERENCES images,
    prediction INTEGER NOT NULL, margin REAL NOT NULL, attack REAL NOT NULL,
    host INTEGER NOT NULL REFERENCES hosts, seconds REAL NOT NULL,
    PRIMARY KEY (epsilon, image)
) WITHOUT ROWID;
CREATE TABLE failures (
    epsilon INTEGER NOT NULL REFERENCES epsilons, image INTEGER NOT NULL REFERENCES images, reason TEXT NOT NULL,
    PRIMARY KEY (epsilon, image)
) WITHOUT ROWID;
"""
VERIFICATION = LedgerKind(KINDS[VERIFICATION_SCHEMA], VERIFICATION_SCHEMA, TABLES, "epsilons", "verifications")

ROUNDING = 1e-5
"""What two float32 passes of different shape may make of one margin: about 1e-6 of the logits, and these are of order
ten. Margins closer than that say nothing against each other."""


@dataclass(frozen=True)
class VerificationIdentity:
    """What two sets of verified images must share to be of one run."""

    seed: int
    weights: str
    """SHA-256 of the network's weights."""
    attack_steps: int
    attack_restarts: int
    dataset: str
    """Identity of the images (`images.ImageSet.identity`)."""
    classes: int
    image_size: int
    device: str
    """Kind of device that computed, cpu or cuda: they round differently."""
    precision: str


@dataclass(frozen=True)
class StoredVerification:
    """One image at one ε, as a ledger has it."""

    image: int
    """Sample id: its position in the dataset."""
    key: str
    label: int
    prediction: int
    margin: float
    """Lower bound of the least margin in the ball."""
    attack: float
    """Least margin that PGD found there, the clean image included."""
    seconds: float

    @property
    def clean_error(self) -> bool:
        """Whether the image itself is classified wrongly."""
        return self.prediction != self.label

    @property
    def pgd_error(self) -> bool:
        """Whether the image, or one that PGD found in the ball, is."""
        return self.clean_error or self.attack <= 0

    @property
    def verified(self) -> bool:
        """Whether no image in the ball can be."""
        return self.margin > 0

    @property
    def contradicts(self) -> bool:
        """Whether PGD found what the bounds exclude, by more than `ROUNDING`: then one of the two is wrong."""
        return self.verified and self.pgd_error and self.margin - self.attack > ROUNDING


class VerificationLedger(LedgerWriter):
    """Verified images, open for writing."""

    def __init__(self, path: str | Path, identity: VerificationIdentity, name: str, source: str) -> None:
        """As `LedgerWriter`; `source` says where the network came from."""
        self.identity = identity
        super().__init__(path, VERIFICATION, identity, {"name": name, "source": source}, {"source": source})

    def add_epsilons(self, epsilons: Iterable[float]) -> None:
        """Enter radii; those already there stay."""
        with spoken_errors(self.path):
            self._begin()
            self._connection.executemany(
                "INSERT INTO epsilons (epsilon) VALUES (?) ON CONFLICT (epsilon) DO NOTHING", [(e,) for e in epsilons]
            )
            rows = self._connection.execute("SELECT epsilon, id FROM epsilons").fetchall()
            self.commit()
        self._levels = dict(rows)

    def verified(self, epsilon: float) -> dict[int, tuple[int, float, float]]:
        """Sample id → (prediction, margin, attack) of the images held at `epsilon`."""
        query = "SELECT image, prediction, margin, attack FROM verifications WHERE epsilon = ?"
        with spoken_errors(self.path):
            rows = self._connection.execute(query, (self._levels[epsilon],)).fetchall()
        return {image: (prediction, margin, attack) for image, prediction, margin, attack in rows}

    def add(self, results: Sequence["VerifiedImage"]) -> None:
        """Take verified images; one that is already there is left as it is. The image and ε must have been entered."""
        rows = [
            (self._levels[one.unit.epsilon], one.unit.image, one.prediction, one.margin, one.attack,
             self._host(one.host), one.seconds)
            for one in results
        ]  # fmt: skip
        self._put("INSERT INTO verifications VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)


class VerificationReader(OpenLedger):
    """A ledger of ℓ∞ verification (see `OpenLedger`)."""

    identity: VerificationIdentity
    """What the run is."""
    source: str
    """Where the network came from."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, VERIFICATION)
        fields = VerificationIdentity.__dataclass_fields__
        self.identity = VerificationIdentity(**{field: self._facts[field] for field in fields})
        self.source = self._facts["source"]

    def epsilons(self) -> list[float]:
        """Every radius of the ledger, ascending."""
        with spoken_errors(self.path):
            return [e for (e,) in self._connection.execute("SELECT epsilon FROM epsilons ORDER BY epsilon")]

    def verified(self, epsilon: float) -> list[StoredVerification]:
        """The images held at `epsilon`, by sample id."""
        query = (
            "SELECT images.id, key, label, prediction, margin, attack, seconds FROM verifications "
            "JOIN images ON images.id = verifications.image "
            "WHERE epsilon = (SELECT id FROM epsilons WHERE epsilons.epsilon = ?) ORDER BY images.id"
        )
        with spoken_errors(self.path):
            return [StoredVerification(*row) for row in self._connection.execute(query, (epsilon,))]
