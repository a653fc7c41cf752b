"""The report for programs: JSON and CSV."""

import csv
import io
import json
import math
from collections.abc import Mapping
from typing import Any

from rrcm_dist.reporting.measures.estimates import CONFIDENCE, Estimate
from rrcm_dist.reporting.measures.guarantees import Guarantee
from rrcm_dist.reporting.measures.pairing import PairedAccuracy
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

NOT_KNOWN = Estimate(math.nan, math.nan, math.nan)


def as_document(summary: Summary) -> dict[str, Any]:
    """The summary as plain values for JSON: `rows`, `envelopes`, `comparisons`, `radii`, `intervals`.

    Accuracies and rates are fractions in [0, 1]; dictionaries by radius have the radius as text ('0.0', '0.25').
    A value that is not known is null; `unanswered` says why an accuracy at a radius is.
    """
    return {
        "rows": [_row(row, summary.radii) for row in summary.rows],
        "envelopes": [_envelope(envelope, summary.radii) for envelope in summary.envelopes],
        "comparisons": [_comparison(comparison, summary.radii) for comparison in summary.comparisons],
        "radii": list(summary.radii),
        "intervals": INTERVALS,
    }


def as_json(document: Mapping[str, Any]) -> str:
    """A document as indented JSON text."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(summary: Summary) -> str:
    """One line per run: name, sigma, images, acr, abstain, seconds, accuracy with its interval at every radius; then
    the simultaneous bands, the guaranteed accuracies and what it cost. A value that is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    lines = [_line(row, summary.radii) for row in summary.rows]
    writer.writerow(lines[0])
    for line in lines:
        writer.writerow(["" if _unknown(value) else value for value in line.values()])
    return text.getvalue()


def _line(row: Row, radii: tuple[float, ...]) -> dict[str, Any]:
    line: dict[str, Any] = {"name": row.name, "sigma": row.sigma, "images": row.images}
    line |= _three("acr", row.acr) | _three("abstain", row.abstain)
    clean = row.clean_accuracy or NOT_KNOWN
    line |= {"clean_accuracy": clean.value, "median_seconds": row.effort.median_seconds}
    for radius in radii:
        line |= _three(f"accuracy_at_{radius_text(radius)}", row.certified_accuracy.get(radius, NOT_KNOWN))
    for radius in radii:
        low, high = row.band.get(radius, (math.nan, math.nan))
        name = f"accuracy_at_{radius_text(radius)}_band"
        line |= {f"{name}_low": low, f"{name}_high": high}
    bound = row.guarantee
    on_images, of_population = ({}, {}) if bound is None else (bound.on_images, bound.of_population)
    for radius in radii:
        line[f"guaranteed_at_{radius_text(radius)}"] = on_images.get(radius, math.nan)
        line[f"guaranteed_in_population_at_{radius_text(radius)}"] = of_population.get(radius, math.nan)
    cost = row.effort
    return line | {
        "failed": row.failed, "mean_draws": cost.mean_draws, "total_draws": cost.total_draws, "saving": cost.saving,
        "mean_seconds": cost.mean_seconds, "hours": cost.hours,
    }  # fmt: skip


def _row(row: Row, radii: tuple[float, ...]) -> dict[str, Any]:
    return {
        "name": row.name,
        "sigma": row.sigma,
        "images": row.images,
        "acr": row.acr.value,
        "acr_interval": _ends(row.acr),
        "abstain": row.abstain.value,
        "abstain_interval": _ends(row.abstain),
        "clean_accuracy": _value(row.clean_accuracy),
        "certified_accuracy": {str(r): _value(row.certified_accuracy.get(r)) for r in radii},
        "certified_accuracy_interval": {str(r): _ends(row.certified_accuracy.get(r)) for r in radii},
        "unanswered": {str(r): reason for r, reason in row.gaps.items()},
        "median_seconds": _or_null(row.effort.median_seconds),
        "certified_accuracy_band": {str(r): list(row.band[r]) if r in row.band else None for r in radii},
        "guaranteed": _guarantee(row.guarantee, radii),
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


def _guarantee(bound: Guarantee | None, radii: tuple[float, ...]) -> dict[str, Any] | None:
    if bound is None:
        return None
    return {
        "alpha": bound.alpha,
        "wrong_certificates_at_most": bound.wrong,
        "on_images": {str(r): bound.on_images.get(r) for r in radii},
        "of_population": {str(r): bound.of_population.get(r) for r in radii},
    }


def _envelope(envelope: Envelope, radii: tuple[float, ...]) -> dict[str, Any]:
    best = {r: envelope.best.get(r, (None, None)) for r in radii}
    return {
        "name": envelope.name,
        "sigmas": list(envelope.sigmas),
        "certified_accuracy": {str(r): _value(estimate) for r, (_, estimate) in best.items()},
        "certified_accuracy_interval": {str(r): _ends(estimate) for r, (_, estimate) in best.items()},
        "sigma": {str(r): sigma for r, (sigma, _) in best.items()},
    }


def _comparison(comparison: Comparison, radii: tuple[float, ...]) -> dict[str, Any]:
    return {
        "name": comparison.name,
        "other": comparison.other,
        "sigma": comparison.sigma,
        "images": comparison.images,
        "acr_difference": comparison.difference.value,
        "acr_difference_interval": _ends(comparison.difference),
        "accuracy_difference": {str(r): _paired(comparison.accuracy.get(r)) for r in radii},
        "unanswered": {str(r): reason for r, reason in comparison.gaps.items()},
        "made_differently": list(comparison.unlike),
        "accuracy_difference_half_width": comparison.half_width,
    }


def _paired(paired: PairedAccuracy | None) -> dict[str, Any] | None:
    if paired is None:
        return None
    return {
        "value": paired.difference.value,
        "interval": _ends(paired.difference),
        "only_name": paired.only_one,
        "only_other": paired.only_other,
        "p_value": paired.p_value,
    }


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def _ends(estimate: Estimate | None) -> list[float] | None:
    return None if estimate is None or math.isnan(estimate.low) else [estimate.low, estimate.high]


def _three(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _unknown(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else value
