"""The certification log that everyone's analysis scripts read, derived from the ledger at any time."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from rrcm_dist.certification.ledger.reading import FailedImage
from rrcm_dist.certification.statistics.bounds import full_precision
from rrcm_dist.certification.statistics.certificates import ABSTAIN, Certificate
from rrcm_dist.files import write_text

STANDARD_COLUMNS = ("idx", "label", "predict", "radius", "correct", "time")
"""Those of Cohen et al.'s released code, in their order."""
EXTRA_COLUMNS = ("key", "candidate", "successes", "n", "selected", "n0", "p_lower", "sigma", "alpha")


def write_log(
    path: str | Path,
    certificates: Sequence[Certificate],
    sigma: float,
    alpha: float,
    failed: Sequence[FailedImage] = (),
) -> None:
    """Write certificates at σ as tab-separated text with a header, one line an image by sample id; it appears whole.

    Numbers stand in full precision: no radius is rounded up. `predict` is -1 and `radius` 0 for an abstained image, and
    for a `failed` one, so that it counts as not certified wherever the log is read; its counts are 0.
    """
    rows = [(c.image, _columns(c)) for c in certificates]
    rows += [(f.image, _failed_columns(f, sigma, alpha)) for f in failed]
    lines = ["\t".join(STANDARD_COLUMNS + EXTRA_COLUMNS), *("\t".join(columns) for _, columns in sorted(rows))]
    write_text(path, "\n".join(lines) + "\n")


def log_name(sigma: float) -> str:
    """The name of the log at σ."""
    return f"sigma_{sigma:g}.tsv"


def _columns(c: Certificate) -> list[str]:
    standard = [c.image, c.label, c.prediction, full_precision(c.radius), int(c.correct), timedelta(seconds=c.seconds)]
    extra = [c.key, c.candidate, c.successes, c.n, c.selected, c.n0, full_precision(c.p_lower),
             full_precision(c.sigma), full_precision(c.alpha)]  # fmt: skip
    return [str(value) for value in standard + extra]


def _failed_columns(failed: FailedImage, sigma: float, alpha: float) -> list[str]:
    standard = [failed.image, failed.label, ABSTAIN, full_precision(0.0), 0, timedelta(0)]
    extra = [failed.key, ABSTAIN, 0, 0, 0, 0, full_precision(0.0), full_precision(sigma), full_precision(alpha)]
    return [str(value) for value in standard + extra]
