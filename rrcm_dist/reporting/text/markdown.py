"""The report in Markdown."""

from collections.abc import Sequence

from rrcm_dist.reporting.summary import Summary
from rrcm_dist.reporting.text.contents import Cell, Line, PlainTable, draws_lines, tables


def to_markdown(summary: Summary, title: str, notes: Sequence[str]) -> str:
    """A Markdown page: all tables, and what to keep in mind."""
    first, *others = tables(summary)
    lines = [f"# {title}", "", first.explanation, "", *table_lines(first)]
    if known := draws_lines(summary.rows):
        lines += ["", *(f"- {line}" for line in known)]
    for table in others:
        lines += ["", f"## {table.caption}", "", table.explanation, "", *table_lines(table)]
    return "\n".join([*lines, "", "## To keep in mind", "", *(f"- {note}" for note in notes), ""])


def table_lines(table: PlainTable) -> list[str]:
    """A table as lines of Markdown."""
    rule = ["---" if column.text else "---:" for column in table.columns]
    return [_row([column.title for column in table.columns]), _row(rule), *(_line(line) for line in table.lines)]


def _line(line: Line) -> str:
    return _row([_cell(cell, line.aside) for cell in line.cells])


def _cell(cell: Cell, aside: bool) -> str:
    text = f"*{cell.text}*" if aside and cell.text else cell.text
    return f"{text} ({cell.detail})" if cell.detail else text


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
