"""The sections of the page on ℓ∞ verification: errors against ε as a chart, tables, published results, files."""

from collections.abc import Sequence
from html import escape

import numpy as np

from rrcm_dist.reporting.page.charts import COLOURS, Axes, Curve, Points, grid, line_chart
from rrcm_dist.reporting.page.tables import words_table
from rrcm_dist.reporting.text.contents import PlainTable
from rrcm_dist.reporting.verification.section import GUARANTEE, ErrorRow, VerificationSection
from rrcm_dist.reporting.verification.tables import epsilon_text, errors_table, published_table

CHART_INTRO = (
    "Share of the test images, in per cent, against the size ε of the ℓ<sub>∞</sub> ball. Solid: verified error, which "
    "no attack can exceed. Dashed: the error that PGD found, which the best attack reaches at least. The error of the "
    "best attack lies in the band between them. Both begin at the clean error; between the ε that were verified, which "
    "are marked below the axis, lines only connect."
)


def verification_sections(section: VerificationSection) -> list[tuple[str, str, str]]:
    """(heading, introduction, body) of each section, as HTML."""
    notes = "".join(f"<li>{escape(note)}</li>" for note in section.notes)
    found = [
        ("ℓ<sub>∞</sub> verification: errors against ε", CHART_INTRO, errors_chart(section)),
        ("ℓ<sub>∞</sub> verification in numbers", escape(GUARANTEE), _errors(section.rows)),
    ]
    if section.published is not None:
        table = published_table(section.published)
        found.append(("ℓ<sub>∞</sub> verification, published", escape(table.explanation), _plain(table)))
    found.append(("ℓ<sub>∞</sub> verification: to keep in mind", "", f'<ul class="notes">{notes}</ul>'))
    found.append(("ℓ<sub>∞</sub> verification: where it comes from", "", _provenance(section)))
    return found


def errors_chart(section: VerificationSection) -> str:
    """Verified and PGD error of every run against ε, the band between them filled; '' where every ε is 0."""
    published = section.published.results if section.published is not None else ()
    largest = max(row.epsilon for row in section.rows)
    if largest == 0:
        return ""
    x_max = max([largest, *(result.epsilon for result in published)])
    measured = sorted({row.epsilon for row in section.rows})
    ticks = ((0.0, "0"), *((epsilon, epsilon_text(epsilon)) for epsilon in measured if epsilon > 0))
    headings = tuple(f"ε = {epsilon:.4g}" for epsilon in grid(Axes(x_max, 1.0)))
    axes = Axes(x_max, 1.0, x_title="ℓ<sub>∞</sub> radius ε", x_ticks=ticks, headings=headings)
    names = list(dict.fromkeys(row.name for row in section.rows))
    curves = [curve for k, name in enumerate(names) for curve in _curves(name, k, section.rows, axes)]
    points = [
        Points(f"published: {result.method}, {result.network}, verified error", (result.epsilon,), (result.verified,))
        for result in published
    ]
    keys = "".join(
        f'<span class="key"><i class="swatch" style="--c:{_colour(k)}"></i>{escape(name)}</span>'
        for k, name in enumerate(names)
    )
    if points:
        keys += '<span class="key"><i class="published-key"></i>published verified error</span>'
    return f'<div class="keys">{keys}</div>{line_chart(curves, axes, _description(section.rows), points)}'


def _curves(name: str, place: int, rows: Sequence[ErrorRow], axes: Axes) -> list[Curve]:
    """PGD's curve and the verified one with the band between them, from the clean error at ε 0 to the largest ε."""
    here = sorted((row for row in rows if row.name == name), key=lambda row: row.epsilon)
    # The errors at ε 0 are the clean ones, whether or not that was asked for.
    start = [] if here[0].epsilon == 0 else [(0.0, here[0].clean.value, here[0].clean.value)]
    knots = [*start, *((row.epsilon, row.pgd.value, row.verified.value) for row in here)]
    epsilon, pgd, verified = np.array(knots).T
    at = grid(axes)
    lower, upper = (np.interp(at, epsilon, ends, right=np.nan) for ends in (pgd, verified))
    colour = _colour(place)
    return [
        Curve(f"{name}: verified error", upper, colour, lower, upper),
        Curve(f"{name}: PGD error", lower, colour, dash="7 5"),
    ]


def _colour(place: int) -> str:
    return f"var(--s{place % COLOURS})"


def _errors(rows: Sequence[ErrorRow]) -> str:
    return _plain(errors_table(rows))


def _plain(table: PlainTable) -> str:
    lines = [[(cell.text, cell.detail) for cell in line.cells] for line in table.lines]
    text = {column.title for column in table.columns if column.text}
    return words_table([column.title for column in table.columns], lines, table.caption, text)


def _provenance(section: VerificationSection) -> str:
    files = {(run.name, run.provenance.path): run for run in section.runs}.values()
    lines = []
    for run in files:
        origin = run.provenance
        settings = " · ".join(f"{key} {value}" for key, value in (*origin.settings.items(), ("device", origin.device)))
        lines.append([(run.name, ""), (str(origin.path), ""), (origin.date, ""), (settings, "")])
    columns = ["Run", "File", "Last change", "Settings stated in it"]
    return words_table(columns, lines, "Sources of the verification", set(columns), wide=set(columns[1::2]))


def _description(rows: Sequence[ErrorRow]) -> str:
    said = (
        f"{row.name} at ε {epsilon_text(row.epsilon)}: clean {100 * row.clean.value:.1f} %, PGD "
        f"{100 * row.pgd.value:.1f} %, verified {100 * row.verified.value:.1f} %"
        for row in rows
    )
    return f"Errors against ε. {'; '.join(said)}."
