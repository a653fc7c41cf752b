"""The tables of the page."""

import math
from collections.abc import Collection, Sequence
from html import escape

from rrcm_dist.reporting.certificates import Certificates
from rrcm_dist.reporting.measures.accuracy import certified_accuracy
from rrcm_dist.reporting.page.drawings import Look, swatch
from rrcm_dist.reporting.published import PublishedTable
from rrcm_dist.reporting.summary import Envelope, Row, Summary, families
from rrcm_dist.reporting.text.contents import Cell, Column, PlainTable, best_values, shared_beginning
from rrcm_dist.reporting.text.wording import (
    best_sigma,
    percent,
    percent_interval,
    percent_of,
    radius_text,
    seconds_text,
)

UNKNOWN = '<span class="soft">–</span>'
TEXT, MORE = ' class="text"', ' class="more"'


def accuracy_table(summary: Summary, look: Look) -> str:
    """All runs by family, their best of σ below them; the best value of the table at each radius is marked."""
    failed = any(row.failed for row in summary.rows)
    counts = ["σ", "Images", "ACR", "Abstains", *(["Failed"] if failed else [])]
    columns = [*counts, *(f"r = {radius_text(r)}" for r in summary.radii), "median s / image"]
    highest = best_values(summary)
    body = []
    for envelope in summary.envelopes:
        if len(summary.envelopes) > 1:
            body.append(
                f'<tr class="group"><th scope="rowgroup" colspan="{len(columns)}">{escape(envelope.name)}</th></tr>'
            )
        body += [_run_line(row, look, highest, failed) for row in summary.rows if row.name == envelope.name]
        if len(envelope.sigmas) > 1:
            body.append(_envelope_line(envelope, summary.radii, len(counts)))
    return _table(columns, body, "Certified accuracy by run and radius")


def plain_table(table: PlainTable, look: Look) -> str:
    """A table as the other outputs have it; lines stand below the name that they belong to."""
    columns = table.columns[1:]
    body: list[str] = []
    group: str | None = None
    before: tuple[Cell, ...] = ()
    for line in table.lines:
        if line.group != group:
            group, before = line.group, ()
            body.append(f'<tr class="group"><th scope="rowgroup" colspan="{len(columns)}">{escape(group)}</th></tr>')
        body.append(_plain_line(line.cells[1:], before, columns, look))
        before = line.cells[1:]
    heads = [(column.title, column.text) for column in columns]
    return _table([title for title, _ in heads], body, table.caption, text={title for title, text in heads if text})


def _plain_line(cells: Sequence[Cell], before: Sequence[Cell], columns: Sequence[Column], look: Look) -> str:
    """A line of a plain table; what it shares with the beginning of the one before it is not said again."""
    shared = shared_beginning(cells, before)
    sigma = "" if shared else f"{swatch(look, float(cells[0].text))}{escape(cells[0].text)}"
    rest = (Cell("") if place < shared else cell for place, cell in enumerate(cells[1:], start=1))
    line = "".join(_cell(cell, column) for cell, column in zip(rest, columns[1:], strict=True))
    return f'<tr{MORE if shared else ""}><th scope="row">{sigma}</th>{line}</tr>'


def published_comparison(runs: Sequence[Certificates], published: PublishedTable) -> str:
    """Our best of σ at the radii of a published table, above its rows."""
    sizes = any(method.parameters_million for method in published.methods)
    body = []
    for name, members in families(runs).items():
        cells = [f"<td>{UNKNOWN}</td>"] if sizes else []
        cells += [_best_cell(members, radius) for radius in published.radii]
        body.append(f'<tr class="ours"><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    for method in published.methods:
        size = f"{method.parameters_million:g} M" if method.parameters_million else UNKNOWN
        cells = [f"<td>{size}</td>"] if sizes else []
        cells += [_heat(value, f"{100 * value:.1f}") for value in method.accuracy]
        body.append(f'<tr><th scope="row">{escape(method.name)}</th>{"".join(cells)}</tr>')
    columns = ["Method", *(["Parameters"] if sizes else []), *(f"r = {radius_text(r)}" for r in published.radii)]
    return _table(columns, body, f"Published results on {published.title}")


def _best_cell(members: Sequence[Certificates], radius: float) -> str:
    known = [certified_accuracy(run, radius) for run in members if not run.gap(radius)]
    if not known:
        return f"<td>{UNKNOWN}</td>"
    best = max(known, key=lambda estimate: estimate.value)
    return _heat(best.value, percent(best), percent_interval(best))


def provenance_table(runs: Sequence[Certificates], look: Look) -> str:
    """Which file every run was read from, its date, and the settings that it states."""
    body = [
        f'<tr><th scope="row">{escape(run.name)}</th><td>{swatch(look, run.sigma)} {run.sigma:g}</td>'
        f'<td class="wide"><code>{escape(str(run.provenance.path))}</code></td><td>{run.provenance.kind}</td>'
        f'<td>{run.provenance.date}</td><td class="wide">{_settings(run)}</td></tr>'
        for run in runs
    ]
    return _table(["Run", "σ", "File", "Kind", "Last change", "Settings stated in it"], body, "Sources", "words")


def words_table(
    columns: Sequence[str],
    lines: Sequence[Sequence[tuple[str, str]]],
    description: str,
    text: Collection[str] = (),
    wide: Collection[str] = (),
) -> str:
    """A table of (value, its interval or '') by line; `text` are the columns whose values are words, those of `wide`
    so long that they are broken."""
    body = []
    for line in lines:
        (name, _), *values = line
        cells = (
            f'<td class="wide">{escape(value)}</td>'
            if column in wide
            else _cell(Cell(value, detail), Column(column, text=column in text))
            for column, (value, detail) in zip(columns[1:], values, strict=True)
        )
        body.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    return _table(columns, body, description, text=text)


def _table(
    columns: Sequence[str], body: Sequence[str], description: str, css: str = "numbers", text: Collection[str] = ()
) -> str:
    head = "".join(f'<th scope="col"{TEXT if column in text else ""}>{escape(column)}</th>' for column in columns)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(description)}"><table class="{css}">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(cell: Cell, column: Column) -> str:
    detail = (
        f'<small class="interval">{escape(cell.detail).replace(" to ", " to&nbsp;")}</small>' if cell.detail else ""
    )
    return f"<td{TEXT if column.text else ''}>{escape(cell.text)}{detail}</td>"


def _run_line(row: Row, look: Look, highest: dict[float, float], failed: bool) -> str:
    acr = "" if math.isnan(row.acr.low) else f"<small>{row.acr.low:.3f}–{row.acr.high:.3f}</small>"
    accuracies = "".join(
        _accuracy_cell(row, radius, highest) for radius in sorted({*row.certified_accuracy, *row.gaps})
    )
    given_up = f"<td>{percent_of(row.failed, row.images)} %</td>" if failed else ""
    return (
        f'<tr><th scope="row">{swatch(look, row.sigma)}{row.sigma:g}</th><td>{row.images:,}</td>'
        f"<td><b>{row.acr.value:.3f}</b>{acr}</td><td>{percent(row.abstain)} %</td>{given_up}{accuracies}"
        f"<td>{seconds_text(row.effort.median_seconds)}</td></tr>"
    )


def _accuracy_cell(row: Row, radius: float, highest: dict[float, float]) -> str:
    if radius in row.gaps:
        return f'<td title="{escape(row.gaps[radius])}">{UNKNOWN}</td>'
    estimate = row.certified_accuracy[radius]
    best = estimate.value == highest[radius] > 0
    return _heat(estimate.value, percent(estimate), percent_interval(estimate), best=best)


def _heat(value: float, text: str, interval: str = "", best: bool = False) -> str:
    """A cell whose shade says its value (0 to 1)."""
    inner = f"<b>{text}</b><small>{interval}</small>" if interval else text
    marks = f"heat{' best' if best else ''}{' zero' if value == 0 else ''}"
    return f'<td class="{marks}" style="--v:{value:.3f}">{inner}</td>'


def _envelope_line(envelope: Envelope, radii: Sequence[float], before: int) -> str:
    best = "".join(_envelope_cell(envelope, radius) for radius in radii)
    return f'<tr class="envelope"><th scope="row" colspan="{before}">best of σ, by convention</th>{best}<td></td></tr>'


def _envelope_cell(envelope: Envelope, radius: float) -> str:
    if radius not in envelope.best:
        return f"<td>{UNKNOWN}</td>"
    sigma, estimate = envelope.best[radius]
    return f"<td>{percent(estimate)}<small>{best_sigma(sigma, estimate)}</small></td>"


def _settings(run: Certificates) -> str:
    stated = (f"{escape(key)} {escape(value)}" for key, value in run.provenance.settings.items())
    return " · ".join(stated) or UNKNOWN
