"""Ledgers of ℓ∞ verification as a report sees them: errors image by image at one ε."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rrcm_dist.certification.ledger.reading import FailedImage
from rrcm_dist.certification.ledger.verification import StoredVerification, VerificationReader
from rrcm_dist.errors import InvalidInput
from rrcm_dist.reporting.certificates import Provenance
from rrcm_dist.reporting.reading.logs import file_provenance
from rrcm_dist.reporting.verification.published import dataset_of


@dataclass(frozen=True)
class VerificationRun:
    """One network at one ε; arrays run over its N images, each image once.

    Attributes:
        name: The run's name.
        epsilon: ℓ∞ radius on [0, 1] pixels.
        clean_error: bool (N,), the image itself is classified wrongly.
        pgd_error: bool (N,), it is, or one that PGD found within ε.
        verified_error: bool (N,), the bounds do not exclude that one within ε is.
        contradictions: Images (sample ids) that are verified and have a PGD error: none, unless something is wrong.
        asked: Images that the ledger was asked for; more than N where the run is not through.
        failures: Images that were given up, with the reason; each counts as an error of all three kinds.
        seconds: float64 (N,), time spent on the image; NaN where it failed.
        provenance: Where they came from.
    """

    name: str
    epsilon: float
    clean_error: NDArray[np.bool_]
    pgd_error: NDArray[np.bool_]
    verified_error: NDArray[np.bool_]
    contradictions: tuple[int, ...]
    seconds: NDArray[np.float64]
    asked: int
    provenance: Provenance
    failures: Mapping[int, str] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """N, the number of images."""
        return len(self.clean_error)


def runs_of(path: Path, name: str | None = None) -> list[VerificationRun]:
    """One run per ε with an image that has a result, ε ascending; `name` overrides the ledger's own.

    Raises `InvalidInput` where no image has one, `RunFailure` for a damaged file.
    """
    with VerificationReader(path) as ledger:
        called = name or ledger.name or path.absolute().parent.name
        runs = []
        for epsilon in ledger.epsilons():
            images = ledger.verified(epsilon)
            held = {image.image for image in images}
            failed = [failure for failure in ledger.failures(epsilon) if failure.image not in held]
            if images or failed:
                keys = [*(image.key for image in images), *(failure.key for failure in failed)]
                runs.append(_run(called, epsilon, images, failed, ledger.images(), _provenance(ledger, keys)))
    if not runs:
        raise InvalidInput(f"{path} holds no verified image yet: let the verification go on, then report")
    return runs


def _run(
    name: str,
    epsilon: float,
    images: Sequence[StoredVerification],
    failed: Sequence[FailedImage],
    asked: int,
    provenance: Provenance,
) -> VerificationRun:
    given_up = [True] * len(failed)
    return VerificationRun(
        name=name,
        epsilon=epsilon,
        clean_error=np.array([image.clean_error for image in images] + given_up, dtype=bool),
        pgd_error=np.array([image.pgd_error for image in images] + given_up, dtype=bool),
        verified_error=np.array([not image.verified for image in images] + given_up, dtype=bool),
        contradictions=tuple(image.image for image in images if image.contradicts),
        seconds=np.array([image.seconds for image in images] + [np.nan] * len(failed), dtype=np.float64),
        asked=asked,
        provenance=provenance,
        failures={failure.image: failure.reason for failure in failed},
    )


def _provenance(ledger: VerificationReader, keys: Sequence[str]) -> Provenance:
    identity, file = ledger.identity, file_provenance(ledger.path, "ledger")
    settings = {
        "bounds": "interval bound propagation",
        "PGD": f"{identity.attack_steps} steps, {identity.attack_restarts} restarts",
        "seed": str(identity.seed),
        "precision": identity.precision,
        "network": f"{ledger.source} ({identity.weights[:12]})",
    }
    dataset = dataset_of(identity.classes, identity.image_size, keys)
    return Provenance(file.path, file.kind, file.date, settings, dataset, device=identity.device)
