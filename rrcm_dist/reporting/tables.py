"""The report on a terminal: one table per family, narrow enough for 80 columns."""

import math
from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from rrcm_dist.reporting.measures.estimates import Estimate
from rrcm_dist.reporting.summary import Summary
from rrcm_dist.reporting.text.contents import draws_lines
from rrcm_dist.reporting.text.wording import best_sigma, percent, radius_text


def terminal_tables(summary: Summary) -> Iterator[Table]:
    """One table per family.

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
