"""The headline of the page: a few numbers, each with its interval and whose it is."""

import math
from html import escape

import numpy as np

from rrcm_dist.reporting.summary import Comparison, Row, Summary
from rrcm_dist.reporting.text.wording import (
    count_text,
    percent,
    percent_interval,
    points,
    points_interval,
    radius_text,
    signed,
    signed_interval,
    times_text,
)

HEADLINE_RADIUS = 0.5
MOST_CARDS = 4


def headline_cards(summary: Summary) -> str:
    """The largest ACR, the widest difference, the accuracies at r = 0 and near `HEADLINE_RADIUS`, what was saved."""
    best = max(summary.rows, key=lambda row: row.acr.value)
    cards = [_card("Average certified radius", f"{best.acr.value:.3f}", _acr_detail(best, summary))]
    cards += _difference_card(summary)
    clean = [(row, row.clean_accuracy) for row in summary.rows if row.clean_accuracy is not None]
    if clean:
        row, accuracy = max(clean, key=lambda pair: pair[1].value)
        detail = f"{_who(row, summary)}<br>95 %: {percent_interval(accuracy)}"
        cards.append(_card("Smoothed accuracy, r = 0", f"{percent(accuracy)}<span> %</span>", detail))
    radius = _nearest({radius for row in summary.rows for radius in row.certified_accuracy})
    if radius is not None:
        known = [row for row in summary.rows if radius in row.certified_accuracy]
        row = max(known, key=lambda row: row.certified_accuracy[radius].value)
        accuracy = row.certified_accuracy[radius]
        detail = f"{_who(row, summary)}<br>95 %: {percent_interval(accuracy)}"
        cards.append(_card(f"Certified at r = {radius_text(radius)}", f"{percent(accuracy)}<span> %</span>", detail))
    saved = max(summary.rows, key=lambda row: np.nan_to_num(row.effort.saving))
    if len(cards) < MOST_CARDS and saved.effort.saving > 1:
        detail = f"{_who(saved, summary)}<br>{count_text(saved.effort.mean_draws)} draws per image on average"
        cards.append(_card("Fewer draws than with fixed n", times_text(saved.effort.saving), detail))
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(what: str, value: str, detail: str) -> str:
    return (
        f'<div class="card"><div class="what">{what}</div><div class="value">{value}</div>'
        f'<div class="detail">{detail}</div></div>'
    )


def _difference_card(summary: Summary) -> list[str]:
    """The widest difference in ACR between runs of one mode; where modes differ, of accuracy at a common radius."""
    alike = [comparison for comparison in summary.comparisons if comparison.same_mode]
    if alike:
        widest = max(alike, key=lambda comparison: abs(comparison.difference.value))
        interval = signed_interval(widest.difference)
        detail = _pair(widest) + (f"<br>95 %: {interval}, paired" if interval else "")
        return [_card("Widest difference in ACR", signed(widest.difference.value), detail)]
    radius = _nearest({radius for comparison in summary.comparisons for radius in comparison.accuracy})
    if radius is None:
        return []
    known = [comparison for comparison in summary.comparisons if radius in comparison.accuracy]
    widest = max(known, key=lambda comparison: abs(comparison.accuracy[radius].difference.value))
    gap = widest.accuracy[radius].difference
    detail = f"{_pair(widest)}<br>95 %: {points_interval(gap)}, paired"
    return [
        _card(f"Widest difference at r = {radius_text(radius)}", f"{points(gap.value)}<span> points</span>", detail)
    ]


def _pair(comparison: Comparison) -> str:
    made = "".join(f"<br>{escape(remark.split(':')[0])}" for remark in comparison.unlike)
    return f"{escape(comparison.name)} over {escape(comparison.other)}, σ {comparison.sigma:g}{made}"


def _acr_detail(best: Row, summary: Summary) -> str:
    interval = "" if math.isnan(best.acr.low) else f"<br>95 %: {best.acr.low:.3f}–{best.acr.high:.3f}"
    return _who(best, summary) + interval


def _who(row: Row, summary: Summary) -> str:
    if len(summary.envelopes) > 1:
        return f"{escape(row.name)}, σ {row.sigma:g}"
    return f"σ {row.sigma:g}" + (f", the best of {len(summary.rows)}" if len(summary.rows) > 1 else "")


def _nearest(radii: set[float]) -> float | None:
    """The one above 0 nearest to `HEADLINE_RADIUS`, or None where there is none."""
    return min((radius for radius in radii if radius > 0), key=lambda r: (abs(r - HEADLINE_RADIUS), r), default=None)
