"""The report in Markdown."""

from collections.abc import Sequence

from rrcm_dist.reporting.summary import Summary
from rrcm_dist.reporting.text.contents import Cell, Line, PlainTable, draws_lines, tables


def to_markdown(summary: Summary, title: str, notes: Sequence[str]) -> str:
    """A Markdown page: all tables, and what to keep in mind."""
    first, *others = tables(summary)
    lines = [f"# {title}", "", first.explanation, "", *_table(first)]
    if known := draws_lines(summary.rows):
        lines += ["", *(f"- {line}" for line in known)]
    for table in others:
        lines += ["", f"## {table.caption}", "", table.explanation, "", *_table(table)]
    return "\n".join([*lines, "", "## To keep in mind", "", *(f"- {note}" for note in notes), ""])


def _table(table: PlainTable) -> list[str]:
    rule = ["---" if column.text else "---:" for column in table.columns]
    return [_row([column.title for column in table.columns]), _row(rule), *(_line(line) for line in table.lines)]


def _line(line: Line) -> str:
    return _row([_cell(cell, line.aside) for cell in line.cells])


def _cell(cell: Cell, aside: bool) -> str:
    text = f"*{cell.text}*" if aside and cell.text else cell.text
    return f"{text} ({cell.detail})" if cell.detail else text


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
