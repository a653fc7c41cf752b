"""The report's tables in LaTeX, for \\input: booktabs, one table environment each, every name escaped.

A document needs `\\usepackage{booktabs}`; nothing else is assumed. Names stand on lines of their own and intervals, as
±, in small type below their values, so that nine radii fit the width of a page.
"""

from collections.abc import Sequence
from itertools import groupby

from rrcm_dist.reporting.summary import Summary
from rrcm_dist.reporting.text.contents import Cell, Column, Line, PlainTable, draws_lines, shared_beginning, tables

ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$",
    "σ": r"$\sigma$", "α": r"$\alpha$", "Φ": r"$\Phi$", "ℓ": r"$\ell$", "≥": r"$\geq$", "≤": r"$\leq$",
    "ε": r"$\varepsilon$", "∞": r"$\infty$", "×": r"$\times$", "±": r"$\pm$", "−": r"$-$", "–": "--", "\u00a0": "~",
}  # fmt: skip
"""What stands for characters that LaTeX reads as commands, or that not every engine and font knows."""
PHRASES = {
    "p_A": "$p_A$",
    "ℓ2": r"$\ell_2$",
    "ℓ∞": r"$\ell_\infty$",
    "Φ(R/σ)": r"$\Phi(R/\sigma)$",
    "radius r": "radius $r$",
}
"""Formulas in our own words, set as such."""


def latex_head(title: str) -> str:
    """The comment above all tables."""
    return "\n".join([f"% {' '.join(title.split())}", r"% Needs \usepackage{booktabs}; take the tables you want."])


def latex_tables(summary: Summary) -> str:
    """All tables on certificates by randomized smoothing."""
    settings = "; ".join(draws_lines(summary.rows))
    pieces = [latex_table(table, settings if number == 0 else "") for number, table in enumerate(tables(summary))]
    return "\n\n".join(pieces)


def escape(text: str) -> str:
    """`text` so that LaTeX shows it as it is."""
    return "".join(ESCAPES.get(character, character) for character in " ".join(text.split()))


def _words(text: str) -> str:
    """Our own words escaped, the formulas in them set as formulas."""
    for phrase, formula in PHRASES.items():
        if phrase in text:
            before, after = text.split(phrase, 1)
            return _words(before) + formula + _words(after)
    kept = text.replace("\n", " ")
    return "".join(ESCAPES.get(character, character) for character in kept)


def latex_table(table: PlainTable, settings: str = "") -> str:
    """One table environment; `settings` end its caption."""
    said = table.explanation.startswith(table.caption)
    caption = _words(table.explanation if said else f"{table.caption}. {table.explanation}")
    if any(cell.short.startswith("±") for line in table.lines for cell in line.cells):
        caption += r" $\pm$: the wider half of the interval."
    if any(cell.best for line in table.lines for cell in line.cells):
        caption += " Bold: the highest value at each radius."
    if settings:
        caption += f" {escape(settings)}."
    columns = table.columns[1:]  # the first has lines of its own
    alignment = "".join("l" if column.text else "r" for column in columns)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:{table.key}}}",
            r"\smallskip",
            r"\footnotesize",
            r"\setlength{\tabcolsep}{3.5pt}",
            rf"\begin{{tabular}}{{@{{}}{alignment}@{{}}}}",
            r"\toprule",
            *_head(columns),
            r"\midrule",
            *_body(table.lines, len(columns)),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _head(columns: Sequence[Column]) -> list[str]:
    groups = [(group, len(list(members))) for group, members in groupby(columns, key=lambda column: column.group)]
    titles = _row([_words(column.short or column.title) for column in columns])
    if not any(group for group, _ in groups):
        return [titles]
    spans, rules, first = [], [], 1
    for group, width in groups:
        spans += [rf"\multicolumn{{{width}}}{{c}}{{{_words(group)}}}"] if group else [""] * width
        if group:
            rules.append(rf"\cmidrule(lr){{{first}-{first + width - 1}}}")
        first += width
    return [_row(spans), "".join(rules), titles]


def _body(lines: Sequence[Line], width: int) -> list[str]:
    """Lines below the name that they belong to; what several lines begin with is said on the first."""
    body: list[str] = []
    group: str | None = None
    before: tuple[Cell, ...] = ()
    for line in lines:
        own = line.cells[1:]
        if line.group != group:
            body += [r"\addlinespace"] if body else []
            body.append(rf"\multicolumn{{{width}}}{{@{{}}l}}{{\textit{{{escape(line.group)}}}}} \\")
            group, before = line.group, ()
        shared = shared_beginning(own, before)
        if before and not shared:
            body.append(r"\addlinespace[2pt]")
        before = own
        cells = [Cell("best"), *own[1:]] if line.aside else [Cell("")] * shared + list(own[shared:])
        body += _set(cells, line.aside)
    return body


def _set(cells: Sequence[Cell], aside: bool) -> list[str]:
    """A line of values and, where there are some, the intervals below them."""
    lines = [_row([_value(cell, aside) for cell in cells])]
    if any(cell.short for cell in cells):
        lines.append(_row([rf"{{\scriptsize {escape(cell.short)}}}" if cell.short else "" for cell in cells]))
    return lines


def _value(cell: Cell, aside: bool) -> str:
    text = escape(cell.text)
    if aside and text:
        return rf"\emph{{{text}}}"
    return rf"\textbf{{{text}}}" if cell.best else text


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
