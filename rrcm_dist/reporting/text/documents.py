"""The report for programs: JSON and CSV."""

import csv
import io
import json
import math
from typing import Any

from rrcm_dist.reporting.measures.estimates import CONFIDENCE, Estimate
from rrcm_dist.reporting.measures.guarantees import Guarantee
from rrcm_dist.reporting.summary import Comparison, Envelope, Row, Summary
from rrcm_dist.reporting.text.wording import radius_text

INTERVALS = {
    "confidence": CONFIDENCE,
    "certified_accuracy": "Wilson score",
    "certified_accuracy_band": "equal local levels, simultaneous over all radii",
    "guaranteed": "binomial tail of wrong certificates; population: Clopper–Pearson",
    "abstain": "Wilson score",
    "acr": "Student t over images",
    "acr_difference": "Student t over paired images",
    "accuracy_difference": "Newcombe method 10, paired; p: exact McNemar",
    "accuracy_difference_half_width": "Gaussian multiplier bootstrap, simultaneous over all radii",
}
"""Which interval stands beside which measure."""


def as_document(summary: Summary) -> dict[str, Any]:
    """The summary as plain values for JSON: `rows`, `envelopes`, `comparisons`, `radii`, `intervals`.

    Accuracies and rates are fractions in [0, 1]; dictionaries by radius have the radius as text ('0.0', '0.25').
    A value that is not known is null.
    """
    return {
        "rows": [_row(row) for row in summary.rows],
        "envelopes": [_envelope(envelope) for envelope in summary.envelopes],
        "comparisons": [_comparison(comparison) for comparison in summary.comparisons],
        "radii": list(summary.radii),
        "intervals": INTERVALS,
    }


def to_json(summary: Summary) -> str:
    """`as_document` as indented JSON text."""
    return json.dumps(as_document(summary), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(summary: Summary) -> str:
    """One line per run: name, sigma, images, acr, abstain, seconds, accuracy with its interval at every radius; then
    the simultaneous bands, the guaranteed accuracies and what it cost. A value that is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    lines = [_line(row) for row in summary.rows]
    writer.writerow(lines[0])
    for line in lines:
        writer.writerow(["" if _unknown(value) else value for value in line.values()])
    return text.getvalue()


def _line(row: Row) -> dict[str, Any]:
    line: dict[str, Any] = {"name": row.name, "sigma": row.sigma, "images": row.images}
    line |= _three("acr", row.acr) | _three("abstain", row.abstain)
    line |= {"clean_accuracy": row.clean_accuracy.value, "median_seconds": row.effort.median_seconds}
    for radius, estimate in row.certified_accuracy.items():
        line |= _three(f"accuracy_at_{radius_text(radius)}", estimate)
    for radius, (low, high) in row.band.items():
        name = f"accuracy_at_{radius_text(radius)}_band"
        line |= {f"{name}_low": low, f"{name}_high": high}
    for radius in row.certified_accuracy:
        bound = row.guarantee
        line[f"guaranteed_at_{radius_text(radius)}"] = math.nan if bound is None else bound.on_images[radius]
        line[f"guaranteed_in_population_at_{radius_text(radius)}"] = (
            math.nan if bound is None else bound.of_population[radius]
        )
    cost = row.effort
    return line | {
        "failed": row.failed, "mean_draws": cost.mean_draws, "total_draws": cost.total_draws, "saving": cost.saving,
        "mean_seconds": cost.mean_seconds, "hours": cost.hours,
    }  # fmt: skip


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "sigma": row.sigma,
        "images": row.images,
        "acr": row.acr.value,
        "acr_interval": _ends(row.acr),
        "abstain": row.abstain.value,
        "abstain_interval": _ends(row.abstain),
        "clean_accuracy": row.clean_accuracy.value,
        "certified_accuracy": {str(r): estimate.value for r, estimate in row.certified_accuracy.items()},
        "certified_accuracy_interval": {str(r): _ends(estimate) for r, estimate in row.certified_accuracy.items()},
        "median_seconds": _or_null(row.effort.median_seconds),
        "certified_accuracy_band": {str(r): list(ends) for r, ends in row.band.items()},
        "guaranteed": _guarantee(row.guarantee),
        "agreement_quantiles": {str(share): _or_null(p) for share, p in row.agreement.items()},
        "failed": row.failed,
        "draws": {
            "mean": _or_null(row.effort.mean_draws),
            "median": _or_null(row.effort.median_draws),
            "most": _or_null(row.effort.most_draws),
            "total": _or_null(row.effort.total_draws),
            "saving": _or_null(row.effort.saving),
        },
        "mean_seconds": _or_null(row.effort.mean_seconds),
        "hours": _or_null(row.effort.hours),
        "device": row.effort.device or None,
    }


def _guarantee(bound: Guarantee | None) -> dict[str, Any] | None:
    if bound is None:
        return None
    return {
        "alpha": bound.alpha,
        "wrong_certificates_at_most": bound.wrong,
        "on_images": {str(r): value for r, value in bound.on_images.items()},
        "of_population": {str(r): value for r, value in bound.of_population.items()},
    }


def _envelope(envelope: Envelope) -> dict[str, Any]:
    return {
        "name": envelope.name,
        "sigmas": list(envelope.sigmas),
        "certified_accuracy": {str(r): estimate.value for r, (_, estimate) in envelope.best.items()},
        "certified_accuracy_interval": {str(r): _ends(estimate) for r, (_, estimate) in envelope.best.items()},
        "sigma": {str(r): sigma for r, (sigma, _) in envelope.best.items()},
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "name": comparison.name,
        "other": comparison.other,
        "sigma": comparison.sigma,
        "images": comparison.images,
        "acr_difference": comparison.difference.value,
        "acr_difference_interval": _ends(comparison.difference),
        "accuracy_difference": {
            str(radius): {
                "value": paired.difference.value,
                "interval": _ends(paired.difference),
                "only_name": paired.only_one,
                "only_other": paired.only_other,
                "p_value": paired.p_value,
            }
            for radius, paired in comparison.accuracy.items()
        },
        "accuracy_difference_half_width": comparison.half_width,
    }


def _ends(estimate: Estimate) -> list[float] | None:
    return None if math.isnan(estimate.low) else [estimate.low, estimate.high]


def _three(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _unknown(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else value
