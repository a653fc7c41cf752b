"""The tables of a report, once: which lines, which columns, which words. Markdown and LaTeX set them."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from rrcm_dist.reporting.measures.estimates import Estimate
from rrcm_dist.reporting.measures.pairing import PairedAccuracy
from rrcm_dist.reporting.summary import QUANTILES, Comparison, Envelope, Row, Summary
from rrcm_dist.reporting.text import wording
from rrcm_dist.reporting.text.wording import percent, percent_interval, radius_text

ACCURACY_AT = "Certified accuracy (%) at ℓ2 radius r"
DIFFERENCE_AT = "Difference of certified accuracy (points) at ℓ2 radius r"


@dataclass(frozen=True)
class Column:
    """A column: its `title`, or its `short` title below that of the `group` it stands in; text is set flush left."""

    title: str
    short: str = ""
    group: str = ""
    text: bool = False


@dataclass(frozen=True)
class Cell:
    """What stands in a cell: a text, its interval or remark, that in short ('±2.1'), whether it is the best best."""

    text: str
    detail: str = ""
    short: str = ""
    best: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a table, the first cell says whose; an aside (an envelope below its runs) is set apart from the others.

    `group` is what the first cell says of all lines that belong together.
    """

    group: str
    cells: tuple[Cell, ...]
    aside: bool = False


@dataclass(frozen=True)
class PlainTable:
    """A table: `caption` is its heading, `explanation` says what the numbers and intervals are."""

    key: str
    caption: str
    explanation: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


def tables(summary: Summary) -> list[PlainTable]:
    """All tables of a report, the most important first; those of which nothing is known are left out."""
    found = [accuracy_table(summary), bounds_table(summary), agreement_table(summary), cost_table(summary)]
    if summary.comparisons:
        found.append(comparison_table(summary))
    return [table for table in found if table.lines]


def accuracy_table(summary: Summary) -> PlainTable:
    """Every run, its family's best of σ below it."""
    best = best_values(summary)
    failed = any(row.failed for row in summary.rows)
    lines = []
    for envelope in summary.envelopes:
        lines += [_accuracy_line(row, best, failed) for row in summary.rows if row.name == envelope.name]
        if len(envelope.sigmas) > 1:
            lines.append(_envelope_line(envelope, summary.radii, failed))
    columns = [Column("Run", text=True), Column("σ"), Column("Images"), Column("ACR"), Column("Abstain %"),
               *([Column("Failed %")] if failed else []), *_radius_columns(summary.radii, ACCURACY_AT),
               Column("Median s/image")]  # fmt: skip
    explanation = (
        "Certified accuracy in % at ℓ2 radius r, with 95 % intervals (Wilson), each for itself; average certified "
        "radius (ACR) with a 95 % Student t interval; median seconds per image."
    )
    explanation += gaps_note(row.gaps for row in summary.rows)
    return PlainTable("accuracy", "Certified accuracy", explanation, tuple(columns), tuple(lines))


def bounds_table(summary: Summary) -> PlainTable:
    """The simultaneous band of every run, and what is guaranteed of the true smoothed classifier where α is known."""
    columns = [Column("Run", text=True), Column("σ"), Column("Holds with 95 %", text=True),
               *_radius_columns(summary.radii, ACCURACY_AT)]  # fmt: skip
    lines = tuple(line for row in summary.rows for line in _bound_lines(row, summary.radii))
    explanation = (
        "Band: for the choice of images, at all radii at once (equal local levels). Guaranteed: lower bounds of the "
        "true certified accuracy, α of each certificate included: on these images at all radii at once, with the wrong "
        "certificates of the binomial tail taken off; in the population at each radius (Clopper–Pearson)."
    )
    explanation += gaps_note(row.gaps for row in summary.rows)
    return PlainTable("bounds", "Bounds of certified accuracy", explanation, tuple(columns), lines)


def agreement_table(summary: Summary) -> PlainTable:
    """How the probability of the class chosen is distributed over the images."""
    columns = [Column("Run", text=True), Column("σ")]
    columns += [Column(f"{100 * q:g} %", f"{100 * q:g} %", "p_A at this share of images") for q in QUANTILES]
    lines = tuple(
        Line(row.name, (*_who(row), *(Cell(wording.probability_text(p)) for p in row.agreement.values())))
        for row in summary.rows
        if not all(map(math.isnan, row.agreement.values()))
    )
    explanation = (
        "Quantiles over images of p_A, the probability of the class chosen under noise: successes / n where the counts "
        "are known, else its lower bound Φ(R/σ); –: not known, the image abstains."
    )
    return PlainTable("agreement", "Probability of the class chosen", explanation, tuple(columns), lines)


def cost_table(summary: Summary) -> PlainTable:
    """Draws and time; columns of which nothing is known are left out."""
    known = [row for row in summary.rows if not (np.isnan(row.effort.mean_draws) and np.isnan(row.effort.mean_seconds))]
    costs = [_costs(row) for row in known]
    told = [name for name in (costs[0] if costs else ()) if any(cost[name] != wording.UNKNOWN for cost in costs)]
    lines = tuple(
        Line(row.name, (*_who(row), *(Cell(cost[name]) for name in told)))
        for row, cost in zip(known, costs, strict=True)
    )
    explanation = (
        "Draws per image, selection included; saving: how many times fewer than with fixed n; seconds of one worker "
        "per image, and their sum over the images."
    )
    heads = (Column("Run", text=True), Column("σ"), *(Column(name) for name in told))
    return PlainTable("cost", "What it cost", explanation, heads, lines)


def comparison_table(summary: Summary) -> PlainTable:
    """Families compared image by image."""
    columns = [Column("Difference", text=True), Column("σ"), Column("Images"), Column("", text=True), Column("ACR"),
               *_radius_columns(summary.radii, DIFFERENCE_AT)]  # fmt: skip
    lines = tuple(line for comparison in summary.comparisons for line in _comparison_lines(comparison, summary.radii))
    explanation = (
        "Differences on the images that both runs certified, with 95 % intervals (ACR: Student t over pairs; accuracy: "
        "Newcombe, method 10) and exact two-sided McNemar p-values, each radius for itself."
    )
    explanation += gaps_note(comparison.gaps for comparison in summary.comparisons)
    explanation += "".join(f" {remark}." for remark in comparison_remarks(summary.comparisons))
    return PlainTable("comparison", "Compared image by image", explanation, tuple(columns), lines)


def best_values(summary: Summary) -> dict[float, float]:
    """The highest certified accuracy of any run, by radius, where some run says anything."""
    values: dict[float, list[float]] = {}
    for row in summary.rows:
        for radius, estimate in row.certified_accuracy.items():
            values.setdefault(radius, []).append(estimate.value)
    return {radius: max(found) for radius, found in values.items()}


def gaps_note(gaps: Iterable[Mapping[float, str]]) -> str:
    """' –: out of reach of n draws at this σ.', what a dash means where accuracies would stand; '' without gaps."""
    reasons = sorted({reason for by_radius in gaps for reason in by_radius.values()}, reverse=True)
    return f" {wording.UNKNOWN}: {', or '.join(reasons)}." if reasons else ""


def comparison_remarks(comparisons: Sequence[Comparison]) -> list[str]:
    """'NAME minus OTHER, σ 0.5: …', how runs that are compared were made differently."""
    return [f"{c.name} minus {c.other}, σ {c.sigma:g}: {remark}" for c in comparisons for remark in c.unlike]


def shared_beginning(cells: Sequence[Cell], before: Sequence[Cell]) -> int:
    """How many of the first `cells` are those of the line `before`: they need not be said twice."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(cells, before, strict=False)))


def draws_lines(rows: Sequence[Row]) -> list[str]:
    """'NAME, σ 0.25, 0.5: n0 100, n 100000, α 0.001' for `rows`; runs of which nothing is known are left out."""
    sigmas: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row.draws:
            sigmas.setdefault((row.name, row.draws), []).append(row.sigma)
    return [f"{name}, σ {', '.join(f'{s:g}' for s in known)}: {draws}" for (name, draws), known in sigmas.items()]


def _radius_columns(radii: Sequence[float], group: str) -> list[Column]:
    return [Column(f"r = {radius_text(r)}", radius_text(r), group) for r in radii]


def _who(row: Row) -> tuple[Cell, Cell]:
    return Cell(row.name), Cell(f"{row.sigma:g}")


def _share(estimate: Estimate | None, best: bool = False) -> Cell:
    if estimate is None:
        return Cell(wording.UNKNOWN)
    return Cell(percent(estimate), percent_interval(estimate), wording.half_width(estimate, 100, 1), best)


def _accuracy_line(row: Row, best: dict[float, float], failed: bool) -> Line:
    known = row.certified_accuracy
    every = sorted({*known, *row.gaps})
    accuracies = [_share(known.get(r), r in known and known[r].value == best[r] > 0) for r in every]
    acr = Cell(f"{row.acr.value:.3f}", wording.acr_interval(row.acr), wording.half_width(row.acr, 1, 3))
    seconds = wording.seconds_text(row.effort.median_seconds).removesuffix(" s")
    shares = [Cell(percent(row.abstain)), *([Cell(wording.percent_of(row.failed, row.images))] if failed else [])]
    return Line(row.name, (*_who(row), Cell(f"{row.images}"), acr, *shares, *accuracies, Cell(seconds)))


def _envelope_line(envelope: Envelope, radii: Sequence[float], failed: bool) -> Line:
    best = []
    for radius in radii:
        sigma, estimate = envelope.best.get(radius, (math.nan, None))
        remark = wording.best_sigma(sigma, estimate) if estimate is not None else ""
        best.append(Cell(percent(estimate), remark, remark))
    blank = Cell("")
    cells = (Cell(f"{envelope.name}, best of σ"), *[blank] * (5 if failed else 4), *best, blank)
    return Line(envelope.name, cells, aside=True)


def _bound_lines(row: Row, radii: Sequence[float]) -> Iterator[Line]:
    for what, end in (("band, upper end", 1), ("band, lower end", 0)):
        ends = {radius: f"{100 * both[end]:.1f}" for radius, both in row.band.items()}
        yield Line(row.name, (*_who(row), Cell(what), *(Cell(ends.get(radius, wording.UNKNOWN)) for radius in radii)))
    if row.guarantee is not None:
        for what, bound in (
            ("guaranteed, these images", row.guarantee.on_images),
            ("guaranteed, population", row.guarantee.of_population),
        ):
            shares = {radius: wording.percent_down(share) for radius, share in bound.items()}
            cells = (Cell(shares.get(radius, wording.UNKNOWN)) for radius in radii)
            yield Line(row.name, (*_who(row), Cell(what), *cells))


def _costs(row: Row) -> dict[str, str]:
    cost = row.effort
    hours = wording.hours_text(cost.hours)
    return {
        "Mean draws": wording.count_text(cost.mean_draws),
        "Median draws": wording.count_text(cost.median_draws),
        "Total draws": wording.count_text(cost.total_draws),
        "Saving": wording.times_text(cost.saving),
        "Median s/image": wording.seconds_text(cost.median_seconds),
        "Mean s/image": wording.seconds_text(cost.mean_seconds),
        "Total time": hours if hours == wording.UNKNOWN else f"{hours} {cost.hours_name}",
    }


def _comparison_lines(comparison: Comparison, radii: Sequence[float]) -> Iterator[Line]:
    gap, whose = comparison.difference, f"{comparison.name} minus {comparison.other}"
    who = (Cell(whose), Cell(f"{comparison.sigma:g}"), Cell(f"{comparison.images}"))
    paired = [comparison.accuracy.get(radius) for radius in radii]
    acr = Cell(wording.signed(gap.value), wording.signed_interval(gap), wording.half_width(gap, 1, 3))
    yield Line(whose, (*who, Cell("difference"), acr, *map(_difference, paired)))
    tests = (Cell(wording.UNKNOWN if p is None else wording.p_value_text(p.p_value)) for p in paired)
    yield Line(whose, (*who, Cell("McNemar p"), Cell(""), *tests))


def _difference(paired: PairedAccuracy | None) -> Cell:
    if paired is None:
        return Cell(wording.UNKNOWN)
    gap = paired.difference
    return Cell(wording.points(gap.value), wording.points_interval(gap), wording.half_width(gap, 100, 1))
