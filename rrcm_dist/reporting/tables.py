"""A report's numbers as Markdown, CSV, JSON and a table on the terminal."""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from rrcm_dist.reporting.measures import CONFIDENCE, Estimate
from rrcm_dist.reporting.summary import Comparison, Envelope, Row, Summary

INTERVALS = {
    "confidence": CONFIDENCE,
    "certified_accuracy": "Wilson score",
    "abstain": "Wilson score",
    "acr": "Student t over images",
}
"""Which interval stands beside which measure."""


def percent(estimate: Estimate) -> str:
    """'60.0' for 0.6."""
    return f"{100 * estimate.value:.1f}"


def percent_interval(estimate: Estimate) -> str:
    """'55.6–64.2' for [0.556, 0.642]."""
    return f"{100 * estimate.low:.1f}–{100 * estimate.high:.1f}"


def radius_text(radius: float) -> str:
    """A radius as short as it can be without loss: '0', '0.25', '1'."""
    return repr(float(radius)).removesuffix(".0")


def acr_text(estimate: Estimate) -> str:
    """'0.472 (0.441–0.503)'; without the interval where one image allows none."""
    if math.isnan(estimate.low):
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f}–{estimate.high:.3f})"


def best_sigma(sigma: float, estimate: Estimate) -> str:
    """'σ 0.5' below an envelope's value; '–' where no σ certifies anything."""
    return f"σ {sigma:g}" if estimate.value > 0 else "–"


def seconds_text(seconds: float) -> str:
    """'15.4 s', '0.12 s', '–' where not known."""
    return "–" if math.isnan(seconds) else f"{seconds:.3g} s"


def as_document(summary: Summary) -> dict[str, Any]:
    """The summary as plain values for JSON: `rows`, `envelopes`, `comparisons`, `radii`, `intervals`.

    Accuracies and rates are fractions in [0, 1]; dictionaries by radius have the radius as text ('0.0', '0.25').
    A value that is not known is null.
    """
    return {
        "rows": [_row_document(row) for row in summary.rows],
        "envelopes": [_envelope_document(envelope) for envelope in summary.envelopes],
        "comparisons": [
            {
                "name": comparison.name,
                "other": comparison.other,
                "sigma": comparison.sigma,
                "images": comparison.images,
                "acr_difference": comparison.difference.value,
                "acr_difference_interval": _ends(comparison.difference),
            }
            for comparison in summary.comparisons
        ],
        "radii": list(summary.radii),
        "intervals": INTERVALS,
    }


def to_json(summary: Summary) -> str:
    """`as_document` as indented JSON text."""
    return json.dumps(as_document(summary), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(summary: Summary) -> str:
    """One line per run: name, sigma, images, acr, abstain, seconds, and accuracy with its interval at every radius."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ["name", "sigma", "images", "acr", "acr_low", "acr_high", "abstain", "abstain_low", "abstain_high"]
    writer.writerow([*columns, "clean_accuracy", "median_seconds", *_accuracy_columns(summary.radii)])
    for row in summary.rows:
        values: list[Any] = [row.name, row.sigma, row.images, *_three(row.acr), *_three(row.abstain)]
        values += [row.clean_accuracy.value, row.median_seconds]
        for estimate in row.certified_accuracy.values():
            values += _three(estimate)
        writer.writerow(["" if isinstance(value, float) and math.isnan(value) else value for value in values])
    return text.getvalue()


def to_markdown(summary: Summary, title: str, notes: list[str]) -> str:
    """A Markdown page: the table of all runs with best-of-σ rows, comparisons, and what to keep in mind."""
    header = ["Run", "σ", "Images", "ACR", "Abstain %", *(f"r = {radius_text(r)}" for r in summary.radii), "s/image"]
    lines = [f"# {title}", "", "Certified accuracy in % at ℓ2 radius r, with 95 % intervals (Wilson).", ""]
    lines += [_markdown_line(header), _markdown_line(["---", *["---:"] * (len(header) - 1)])]
    for envelope in summary.envelopes:
        lines += [_markdown_line(_run_cells(row)) for row in summary.rows if row.name == envelope.name]
        if len(envelope.sigmas) > 1:
            lines.append(_markdown_line(_envelope_cells(envelope)))
    if known := draws_lines(summary.rows):
        lines += ["", *(f"- {line}" for line in known)]
    if summary.comparisons:
        lines += ["", "## Average certified radius, paired by image", ""]
        lines += [_comparison_line(comparison) for comparison in summary.comparisons]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes), ""])


def draws_lines(rows: Sequence[Row]) -> list[str]:
    """'NAME, σ 0.25, 0.5: n0 100, n 100000, α 0.001' for `rows`; runs of which nothing is known are left out."""
    sigmas: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row.draws:
            sigmas.setdefault((row.name, row.draws), []).append(row.sigma)
    return [f"{name}, σ {', '.join(f'{s:g}' for s in known)}: {draws}" for (name, draws), known in sigmas.items()]


def terminal_tables(summary: Summary) -> Iterator[Table]:
    """The same for a terminal, one table per family, narrow enough for 80 columns.

    Below each accuracy stands the wider half of its 95 % Wilson interval, below each ACR the half of its t interval.
    """
    for envelope in summary.envelopes:
        table = Table(title=escape(envelope.name), title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=0,
                      caption_justify="left", pad_edge=False, show_edge=False)  # fmt: skip
        for column in ("σ", "images", "ACR", "abst.", *(radius_text(radius) for radius in summary.radii)):
            table.add_column(column, justify="right", no_wrap=True)
        rows = [row for row in summary.rows if row.name == envelope.name]
        table.caption = "\n".join(escape(line.removeprefix(f"{envelope.name}, ")) for line in draws_lines(rows)) or None
        for row in rows:
            cells = [f"{row.sigma:g}", str(row.images), _acr_lines(row.acr), percent(row.abstain)]
            table.add_row(*cells, *(_two_lines(estimate) for estimate in row.certified_accuracy.values()))
        if len(envelope.sigmas) > 1:
            best = [
                f"{percent(estimate)}\n[dim]{best_sigma(sigma, estimate).removeprefix('σ ')}[/]"
                for sigma, estimate in envelope.best.values()
            ]
            table.add_row("best\nat σ", "", "", "", *best, style="italic")
        yield table


def _acr_lines(estimate: Estimate) -> str:
    half = "" if math.isnan(estimate.low) else f"\n[dim]±{estimate.high - estimate.value:.3f}[/]"
    return f"{estimate.value:.3f}{half}"


def _two_lines(estimate: Estimate) -> str:
    wider_half = max(estimate.high - estimate.value, estimate.value - estimate.low)
    return f"{percent(estimate)}\n[dim]±{100 * wider_half:.1f}[/]"


def _row_document(row: Row) -> dict[str, Any]:
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
        "median_seconds": None if math.isnan(row.median_seconds) else row.median_seconds,
    }


def _envelope_document(envelope: Envelope) -> dict[str, Any]:
    return {
        "name": envelope.name,
        "sigmas": list(envelope.sigmas),
        "certified_accuracy": {str(r): estimate.value for r, (_, estimate) in envelope.best.items()},
        "certified_accuracy_interval": {str(r): _ends(estimate) for r, (_, estimate) in envelope.best.items()},
        "sigma": {str(r): sigma for r, (sigma, _) in envelope.best.items()},
    }


def _ends(estimate: Estimate) -> list[float] | None:
    return None if math.isnan(estimate.low) else [estimate.low, estimate.high]


def _three(estimate: Estimate) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]


def _accuracy_columns(radii: tuple[float, ...]) -> list[str]:
    return [f"accuracy_at_{radius_text(r)}{end}" for r in radii for end in ("", "_low", "_high")]


def _run_cells(row: Row) -> list[str]:
    accuracies = [f"{percent(e)} ({percent_interval(e)})" for e in row.certified_accuracy.values()]
    seconds = seconds_text(row.median_seconds).removesuffix(" s")
    return [row.name, f"{row.sigma:g}", str(row.images), acr_text(row.acr), percent(row.abstain), *accuracies, seconds]


def _envelope_cells(envelope: Envelope) -> list[str]:
    best = [f"*{percent(estimate)}* ({best_sigma(sigma, estimate)})" for sigma, estimate in envelope.best.values()]
    return [f"*{envelope.name}, best of σ*", "", "", "", "", *best, ""]


def _comparison_line(comparison: Comparison) -> str:
    gap = comparison.difference
    interval = "" if math.isnan(gap.low) else f" ({gap.low:+.3f} to {gap.high:+.3f})"
    return (
        f"- σ {comparison.sigma:g}: {comparison.name} minus {comparison.other} = {gap.value:+.3f}{interval}, "
        f"{comparison.images} images"
    )


def _markdown_line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
