"""The report on a terminal: one table per family, narrow enough for 80 columns."""

import math
from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from rrcm_dist.reporting.measures.estimates import Estimate
from rrcm_dist.reporting.summary import Envelope, Summary
from rrcm_dist.reporting.text.contents import draws_lines, gaps_note
from rrcm_dist.reporting.text.wording import UNKNOWN, best_sigma, percent, percent_of, radius_text


def terminal_tables(summary: Summary) -> Iterator[Table]:
    """One table per family.

    Below each accuracy stands the wider half of its 95 % Wilson interval, below each ACR the half of its t interval.
    """
    for envelope in summary.envelopes:
        table = Table(title=escape(envelope.name), title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=0,
                      caption_justify="left", pad_edge=False, show_edge=False)  # fmt: skip
        rows = [row for row in summary.rows if row.name == envelope.name]
        failed = any(row.failed for row in rows)
        counts = ("σ", "images", "ACR", "abst.", *(["failed"] if failed else []))
        for column in (*counts, *(radius_text(radius) for radius in summary.radii)):
            table.add_column(column, justify="right", no_wrap=True)
        below = [line.removeprefix(f"{envelope.name}, ") for line in draws_lines(rows)]
        below += [note.strip()] if (note := gaps_note(row.gaps for row in rows)) else []
        table.caption = escape("\n".join(below)) or None
        for row in rows:
            cells = [f"{row.sigma:g}", str(row.images), _acr_lines(row.acr), percent(row.abstain)]
            cells += [percent_of(row.failed, row.images)] if failed else []
            table.add_row(*cells, *(_two_lines(row.certified_accuracy.get(radius)) for radius in summary.radii))
        if len(envelope.sigmas) > 1:
            best = (_best_lines(envelope, radius) for radius in summary.radii)
            table.add_row("best\nat σ", *[""] * (len(counts) - 1), *best, style="italic")
        yield table


def _best_lines(envelope: Envelope, radius: float) -> str:
    if radius not in envelope.best:
        return UNKNOWN
    sigma, estimate = envelope.best[radius]
    return f"{percent(estimate)}\n[dim]{best_sigma(sigma, estimate).removeprefix('σ ')}[/]"


def _acr_lines(estimate: Estimate) -> str:
    half = "" if math.isnan(estimate.low) else f"\n[dim]±{estimate.high - estimate.value:.3f}[/]"
    return f"{estimate.value:.3f}{half}"


def _two_lines(estimate: Estimate | None) -> str:
    if estimate is None:
        return UNKNOWN
    wider_half = max(estimate.high - estimate.value, estimate.value - estimate.low)
    return f"{percent(estimate)}\n[dim]±{100 * wider_half:.1f}[/]"
