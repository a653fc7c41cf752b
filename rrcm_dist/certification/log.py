"""The certification log that everyone's analysis scripts read, derived from the ledger at any time."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from rrcm_dist.certification.statistics.bounds import full_precision
from rrcm_dist.certification.statistics.certificates import Certificate
from rrcm_dist.files import write_text

STANDARD_COLUMNS = ("idx", "label", "predict", "radius", "correct", "time")
"""Those of Cohen et al.'s released code, in their order."""
EXTRA_COLUMNS = ("key", "candidate", "successes", "n", "selected", "n0", "p_lower", "sigma", "alpha")


def write_log(path: str | Path, certificates: Sequence[Certificate]) -> None:
    """Write certificates as tab-separated text with a header, one line an image by sample id; the file appears whole.

    Numbers stand in full precision: no radius is rounded up. `predict` is -1 and `radius` 0 for an abstained image.
    """
    lines = ["\t".join(STANDARD_COLUMNS + EXTRA_COLUMNS)]
    lines += ["\t".join(_columns(certificate)) for certificate in sorted(certificates, key=lambda c: c.image)]
    write_text(path, "\n".join(lines) + "\n")


def log_name(sigma: float) -> str:
    """The name of the log at σ."""
    return f"sigma_{sigma:g}.tsv"


def _columns(c: Certificate) -> list[str]:
    standard = [c.image, c.label, c.prediction, full_precision(c.radius), int(c.correct), timedelta(seconds=c.seconds)]
    extra = [c.key, c.candidate, c.successes, c.n, c.selected, c.n0, full_precision(c.p_lower),
             full_precision(c.sigma), full_precision(c.alpha)]  # fmt: skip
    return [str(value) for value in standard + extra]
