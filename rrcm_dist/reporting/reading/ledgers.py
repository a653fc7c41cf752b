"""Certificates from ledgers: counts summed and bounded at the moment of reading."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rrcm_dist.certification.ledger.file import APPLICATION
from rrcm_dist.certification.ledger.reader import LedgerReader, StoredClassifier
from rrcm_dist.certification.ledger.reading import FailedImage
from rrcm_dist.certification.statistics import bounds, confidence_sequence
from rrcm_dist.certification.statistics.certificates import Certificate
from rrcm_dist.errors import InvalidInput
from rrcm_dist.reporting.certificates import ABSTAIN, Certificates, Provenance
from rrcm_dist.reporting.published import dataset_of_facts
from rrcm_dist.reporting.reading.logs import file_provenance

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


def read_ledger(path: Path, name: str | None = None, alpha: float | None = None) -> list[Certificates]:
    """Read a ledger: one `Certificates` per noise level with a finished image, σ ascending.

    `name` overrides the run's own, and `alpha` bounds its counts at another confidence than it was made for. An image
    that was given up counts as not certified, unless its counts were completed since. Raises `InvalidInput` where no
    image is finished, `RunFailure` for a damaged file.
    """
    with LedgerReader(path) as ledger:
        called = name or ledger.name or path.absolute().parent.name
        runs = []
        for classifier in ledger.classifiers():
            certificates = ledger.certificates(classifier.sigma, alpha)
            finished = {certificate.image for certificate in certificates}
            failed = [failure for failure in ledger.failures(classifier.sigma) if failure.image not in finished]
            if certificates or failed:
                keys = [*(c.key for c in certificates), *(f.key for f in failed)]
                provenance = _provenance(ledger, classifier, keys, ledger.identity.alpha if alpha is None else alpha)
                runs.append(_run(called, classifier.sigma, certificates, failed, provenance))
    if not runs:
        raise InvalidInput(f"{path} holds no finished image yet: let the certification go on, then report")
    return runs


def _provenance(ledger: LedgerReader, classifier: StoredClassifier, keys: Sequence[str], alpha: float) -> Provenance:
    identity = ledger.identity
    statistics = confidence_sequence if ledger.mode == "adaptive" else bounds
    settings = {"mode": ledger.mode} if ledger.mode != "fixed" else {}
    settings |= {"n0": str(identity.n0), "n": str(ledger.n), "alpha": f"{alpha:g}", "seed": str(identity.seed),
                 "precision": identity.precision,
                 "classifier": f"{classifier.source} ({classifier.weights[:12]})"}  # fmt: skip
    if alpha != identity.alpha:
        settings["made at alpha"] = f"{identity.alpha:g}"
    return replace(
        file_provenance(ledger.path, "ledger"),
        settings=settings,
        dataset=dataset_of_facts(identity.classes, identity.image_size, keys),
        alpha=alpha,
        mode=ledger.mode,
        n=ledger.n,
        grid=ledger.radii,
        reach=statistics.largest_radius(ledger.n, alpha, classifier.sigma),
        fixed_draws=identity.n0 + ledger.n,
        device=identity.noise,
        agreement="estimate",
    )


def _run(
    name: str, sigma: float, found: Sequence[Certificate], failed: Sequence[FailedImage], provenance: Provenance
) -> Certificates:
    order = np.argsort([*(c.image for c in found), *(f.image for f in failed)], kind="stable")
    unknown = [math.nan] * len(failed)

    def column(of_found: list, of_failed: list, kind: type) -> NDArray:
        return np.array(of_found + of_failed, dtype=kind)[order]

    return Certificates(
        name=name,
        sigma=sigma,
        image=column([c.image for c in found], [f.image for f in failed], np.int64),
        label=column([c.label for c in found], [f.label for f in failed], np.int64),
        predict=column([c.prediction for c in found], [ABSTAIN] * len(failed), np.int64),
        radius=column([c.radius for c in found], [0.0] * len(failed), np.float64),
        seconds=column([c.seconds for c in found], unknown, np.float64),
        agreement=column([c.successes / c.n for c in found], unknown, np.float64),
        draws=column([c.n0 + c.n for c in found], unknown, np.float64),
        provenance=provenance,
        failures={failure.image: failure.reason for failure in failed},
    )
