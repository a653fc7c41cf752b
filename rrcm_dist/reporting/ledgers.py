"""Certificates from ledgers: counts summed and bounded at the moment of reading."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rrcm_dist.certification.ledger.file import APPLICATION
from rrcm_dist.certification.ledger.reader import LedgerReader
from rrcm_dist.certification.statistics.certificates import Certificate
from rrcm_dist.errors import InvalidInput
from rrcm_dist.reporting.certificates import Certificates, Provenance
from rrcm_dist.reporting.logs import file_provenance
from rrcm_dist.reporting.published import dataset_of_facts

SQLITE_HEADER = b"SQLite format 3\x00"
APPLICATION_ID_AT = slice(68, 72)
"""Bytes of an SQLite file's header that hold its application id, big-endian."""


def is_ledger(path: Path) -> bool:
    """True where the file's first bytes say that it is a ledger."""
    try:
        with open(path, "rb") as file:
            head = file.read(100)
    except OSError:
        return False
    return head.startswith(SQLITE_HEADER) and int.from_bytes(head[APPLICATION_ID_AT], "big") == APPLICATION


def read_ledger(path: Path, name: str | None = None) -> list[Certificates]:
    """Read a ledger: one `Certificates` per noise level with a finished image, σ ascending.

    `name` overrides the run's own. Raises `InvalidInput` where no image is finished, `RunFailure` for a damaged file.
    """
    with LedgerReader(path) as ledger:
        settings = {"n0": str(ledger.identity.n0), "n": str(ledger.n), "alpha": f"{ledger.identity.alpha:g}",
                    "seed": str(ledger.identity.seed), "precision": ledger.identity.precision}  # fmt: skip
        called = name or ledger.name or path.absolute().parent.name
        runs = []
        for classifier in ledger.classifiers():
            certificates = ledger.certificates(classifier.sigma)
            if certificates:
                stated = {**settings, "classifier": f"{classifier.source} ({classifier.weights[:12]})"}
                keys = [certificate.key for certificate in certificates]
                dataset = dataset_of_facts(ledger.identity.classes, ledger.identity.image_size, keys)
                provenance = replace(file_provenance(path, "ledger"), settings=stated, dataset=dataset)
                runs.append(_run(called, classifier.sigma, certificates, provenance))
    if not runs:
        raise InvalidInput(f"{path} holds no finished image yet: let the certification go on, then report")
    return runs


def _run(name: str, sigma: float, found: Sequence[Certificate], provenance: Provenance) -> Certificates:
    return Certificates(
        name=name,
        sigma=sigma,
        image=np.array([certificate.image for certificate in found], dtype=np.int64),
        label=np.array([certificate.label for certificate in found], dtype=np.int64),
        predict=np.array([certificate.prediction for certificate in found], dtype=np.int64),
        radius=np.array([certificate.radius for certificate in found], dtype=np.float64),
        seconds=np.array([certificate.seconds for certificate in found], dtype=np.float64),
        provenance=provenance,
    )
