"""The part of a report on ℓ∞ verification: its numbers, published ones, and what a reader must keep in mind."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rrcm_dist.reporting.measures.estimates import Estimate, proportion
from rrcm_dist.reporting.verification.published import PublishedVerifications
from rrcm_dist.reporting.verification.reading import VerificationRun

GUARANTEE = (
    "Deterministic: of every image that counts as verified, interval bounds prove that no image within the ℓ∞ distance "
    "ε is classified otherwise. The error that the best attack could reach lies between PGD error and verified error."
)
OTHER_GUARANTEE = (
    "ℓ2 certificates by randomized smoothing hold for the smoothed classifier, each but for a chance of α; ℓ∞ "
    "verification holds for the network itself, without chance. The two are of other balls: no number of one can be "
    "held against a number of the other."
)


@dataclass(frozen=True)
class ErrorRow:
    """One network at one ε: shares of the images with their 95 % Wilson intervals."""

    name: str
    epsilon: float
    images: int
    failed: int
    clean: Estimate
    pgd: Estimate
    verified: Estimate
    contradictions: tuple[int, ...]
    seconds: float
    """Median per image; NaN where not known."""


@dataclass(frozen=True)
class VerificationSection:
    """All of a report on ℓ∞ verification; rows by name, then ε ascending."""

    runs: tuple[VerificationRun, ...]
    rows: tuple[ErrorRow, ...]
    published: PublishedVerifications | None
    notes: tuple[str, ...]


def build_section(
    runs: Sequence[VerificationRun], published: PublishedVerifications | None
) -> VerificationSection | None:
    """The section on `runs`; None where there are none."""
    if not runs:
        return None
    return VerificationSection(tuple(runs), tuple(map(_row, runs)), published, tuple(_notes(runs)))


def _row(run: VerificationRun) -> ErrorRow:
    known = run.seconds[np.isfinite(run.seconds)]
    return ErrorRow(
        run.name, run.epsilon, run.images, len(run.failures), proportion(run.clean_error), proportion(run.pgd_error),
        proportion(run.verified_error), run.contradictions, float(np.median(known)) if len(known) else float("nan"),
    )  # fmt: skip


def _notes(runs: Sequence[VerificationRun]) -> Iterator[str]:
    for run in runs:
        if run.contradictions:
            which = ", ".join(map(str, run.contradictions[:5]))
            yield (
                f"CONTRADICTION in {run.name} at ε {run.epsilon:.6g}: {len(run.contradictions)} images are verified "
                f"though PGD found an error (images {which}): the bounds or the attack are wrong, and no number of it "
                "can be trusted."
            )
    for run in runs:
        if run.images < run.asked:
            yield (
                f"{run.name} at ε {run.epsilon:.6g}: {run.images} of {run.asked} images so far; the others are left out"
            )
    for run in runs:
        if run.failures:
            image, reason = next(iter(run.failures.items()))
            first = (reason.splitlines() or [""])[0]
            yield (
                f"{run.name} at ε {run.epsilon:.6g}: {len(run.failures)} images were given up and count as errors of "
                f"every kind; image {image}: {first}"
            )
    yield (
        "Bounds are computed in float32 without directed rounding, as is usual; a margin within rounding of 0 proves "
        "nothing. Intervals are of the choice of images."
    )
