"""The tables of ℓ∞ errors, once; Markdown, LaTeX, the page and the terminal set them."""

import math
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from rrcm_dist.reporting.measures.estimates import Estimate
from rrcm_dist.reporting.text.contents import Cell, Column, Line, PlainTable
from rrcm_dist.reporting.text.wording import UNKNOWN, half_width, percent, percent_interval, seconds_text
from rrcm_dist.reporting.verification.published import PublishedErrors, PublishedVerifications
from rrcm_dist.reporting.verification.reading import VerificationRun
from rrcm_dist.reporting.verification.section import GUARANTEE, ErrorRow, VerificationSection, build_section

ERRORS = ("Clean error %", "PGD error %", "Verified error %")
CAPTION = "ℓ∞ verification: errors within ε"
PUBLISHED_CAPTION = "ℓ∞ verification, published"


def epsilon_text(epsilon: float) -> str:
    """'8/255' where it is a whole number of those, else as short as it can be without loss: '0.4'."""
    of_255 = epsilon * 255
    whole = round(of_255)
    if whole and abs(of_255 - whole) < 1e-6 and len(repr(epsilon)) > 6:
        return f"{whole}/255"
    return repr(float(epsilon)).removesuffix(".0")


def verification_tables(section: VerificationSection) -> list[PlainTable]:
    """Own errors, then published ones where there are some."""
    tables = [errors_table(section.rows)]
    if section.published is not None:
        tables.append(published_table(section.published))
    return tables


def errors_table(rows: Sequence[ErrorRow]) -> PlainTable:
    """Every network and ε."""
    failed = any(row.failed for row in rows)
    columns = [Column("Run", text=True), Column("ε"), Column("Images"), *([Column("Failed")] if failed else []),
               *map(Column, ERRORS), Column("Median s/image")]  # fmt: skip
    lines = tuple(_line(row, failed) for row in rows)
    explanation = f"Errors in % of the images, with 95 % intervals (Wilson). {GUARANTEE}"
    return PlainTable("verified-errors", CAPTION, explanation, tuple(columns), lines)


def published_table(published: PublishedVerifications) -> PlainTable:
    """What papers report on the data set."""
    columns = (Column("Published", text=True), Column("ε"), Column("Network", text=True), Column("Epochs"),
               Column(ERRORS[0]), Column(ERRORS[2]))  # fmt: skip
    lines = tuple(_published_line(result) for result in published.results)
    explanation = (
        f"Published values on {published.title}, of its whole test set: {published.source}. They are not of this run."
    )
    return PlainTable("published-verified-errors", PUBLISHED_CAPTION, explanation, columns, lines)


def errors_terminal_table(runs: Sequence[VerificationRun]) -> Table:
    """Own errors for a terminal; below each the wider half of its interval."""
    section = build_section(runs, None)
    assert section is not None, "there are runs"
    table = Table(title=CAPTION, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0),
                  pad_edge=False, show_edge=False)  # fmt: skip
    table.add_column("run")
    for column in ("ε", "images", *(name.lower() for name in ERRORS)):
        table.add_column(column, justify="right", no_wrap=True)
    for row in section.rows:
        errors = (f"{percent(e)}\n[dim]{half_width(e, 100, 1)}[/]" for e in (row.clean, row.pgd, row.verified))
        table.add_row(escape(row.name), epsilon_text(row.epsilon), str(row.images), *errors)
    return table


def _line(row: ErrorRow, failed: bool) -> Line:
    errors = map(_share, (row.clean, row.pgd, row.verified))
    given_up = [Cell(str(row.failed))] if failed else []
    seconds = UNKNOWN if math.isnan(row.seconds) else seconds_text(row.seconds).removesuffix(" s")
    cells = (
        Cell(row.name),
        Cell(epsilon_text(row.epsilon)),
        Cell(f"{row.images:,}"),
        *given_up,
        *errors,
        Cell(seconds),
    )
    return Line(row.name, cells)


def _published_line(result: PublishedErrors) -> Line:
    epochs = UNKNOWN if result.epochs is None else str(result.epochs)
    cells = (
        Cell(f"{result.method}, {result.dataset}"), Cell(epsilon_text(result.epsilon)), Cell(result.network),
        Cell(epochs), Cell(f"{100 * result.clean:.2f}"), Cell(f"{100 * result.verified:.2f}"),
    )  # fmt: skip
    return Line(cells[0].text, cells)


def _share(estimate: Estimate) -> Cell:
    return Cell(percent(estimate), percent_interval(estimate), half_width(estimate, 100, 1))
