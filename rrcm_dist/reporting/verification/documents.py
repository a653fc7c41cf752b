"""ℓ∞ errors for programs: JSON and CSV."""

import csv
import io
import math
from typing import Any

from rrcm_dist.reporting.measures.estimates import Estimate
from rrcm_dist.reporting.verification.section import GUARANTEE, ErrorRow, VerificationSection

ERRORS = ("clean_error", "pgd_error", "verified_error")


def verification_document(section: VerificationSection) -> dict[str, Any]:
    """The section as plain values for JSON: `rows`, `published`, `guarantee`, `notes`. Errors are in [0, 1]."""
    published = section.published
    return {
        "guarantee": GUARANTEE,
        "interval": "Wilson score, 95 %",
        "rows": [_row(row) for row in section.rows],
        "published": None if published is None else {
            "source": published.source,
            "results": [
                {"dataset": result.dataset, "method": result.method, "network": result.network,
                 "epochs": result.epochs, "epsilon": result.epsilon, "clean_error": result.clean,
                 "verified_error": result.verified}
                for result in published.results
            ],
        },
        "notes": list(section.notes),
    }  # fmt: skip


def verification_csv(section: VerificationSection) -> str:
    """One line per network and ε: name, epsilon, images, failed, errors with their intervals, contradictions."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ends = [f"{error}{end}" for error in ERRORS for end in ("", "_low", "_high")]
    writer.writerow(["name", "epsilon", "images", "failed", *ends, "contradictions", "median_seconds"])
    for row in section.rows:
        numbers = [value for one in _errors(row) for value in (one.value, one.low, one.high)]
        seconds = "" if math.isnan(row.seconds) else row.seconds
        writer.writerow([row.name, row.epsilon, row.images, row.failed, *numbers, len(row.contradictions), seconds])
    return text.getvalue()


def _row(row: ErrorRow) -> dict[str, Any]:
    told: dict[str, Any] = {"name": row.name, "epsilon": row.epsilon, "images": row.images, "failed": row.failed}
    for name, estimate in zip(ERRORS, _errors(row), strict=True):
        told |= {name: estimate.value, f"{name}_interval": [estimate.low, estimate.high]}
    seconds = None if math.isnan(row.seconds) else row.seconds
    return told | {"contradictions": list(row.contradictions), "median_seconds": seconds}


def _errors(row: ErrorRow) -> tuple[Estimate, Estimate, Estimate]:
    return row.clean, row.pgd, row.verified
