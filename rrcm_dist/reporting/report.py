"""A report: read runs, add them up, write the page and the tables.

The output folder holds

    report.html    the page: figures, tables, provenance; complete in itself
    report.md      the tables
    report.csv     one line per run
    report.json    everything, with intervals
    report.tex     the tables, for \\input
    figures/       the figures, for papers: PDF, SVG and PNG
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrcm_dist.config.schema import DEFAULT_RADII
from rrcm_dist.errors import InvalidInput
from rrcm_dist.files import write_text
from rrcm_dist.reporting.caveats import caveats
from rrcm_dist.reporting.certificates import Certificates, Source
from rrcm_dist.reporting.figures.files import write_figures
from rrcm_dist.reporting.page.page import render_page
from rrcm_dist.reporting.published import AUTO, PublishedTable, published_table
from rrcm_dist.reporting.reading.sources import read_sources
from rrcm_dist.reporting.summary import Summary, families, summarise
from rrcm_dist.reporting.text.documents import as_document, to_csv, to_json
from rrcm_dist.reporting.text.latex import to_latex
from rrcm_dist.reporting.text.markdown import to_markdown


@dataclass(frozen=True)
class Report:
    """A report in memory.

    Attributes:
        title: Heading.
        runs: What it is about, one per name and σ.
        summary: The numbers.
        published: Results to stand beside, or None.
        notes: What a reader must keep in mind.
    """

    title: str
    runs: tuple[Certificates, ...]
    summary: Summary
    published: PublishedTable | None
    notes: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """All numbers as plain values; `rows` has one entry per run (see `text.documents.as_document`)."""
        return as_document(self.summary)

    def json(self) -> str:
        """`document` as JSON text."""
        return to_json(self.summary)

    def csv(self) -> str:
        """One line per run."""
        return to_csv(self.summary)

    def markdown(self) -> str:
        """The tables and notes."""
        return to_markdown(self.summary, self.title, self.notes)

    def latex(self) -> str:
        """The tables, for \\input."""
        return to_latex(self.summary, self.title)

    def html(self) -> str:
        """The self-contained page."""
        return render_page(self.title, self.runs, self.summary, self.published, self.notes)

    def write(self, folder: str | Path, figures: bool = True) -> Path:
        """Write report.html, .md, .csv, .json, .tex and figures into `folder` (made if missing); returns the page's.

        `figures` False leaves out the figures for papers, which take a few seconds; the page has its own.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise InvalidInput(f"{folder} is a file: give a folder for the report")
        pieces = {
            "md": self.markdown(),
            "csv": self.csv(),
            "json": self.json(),
            "tex": self.latex(),
            "html": self.html(),
        }
        for suffix, text in pieces.items():
            write_text(folder / f"report.{suffix}", text)
        if figures:
            write_figures(folder / "figures", self.runs, self.summary, self.published)
        return folder / "report.html"


def build_report(
    sources: Sequence[Source],
    radii: Sequence[float] | None = None,
    output: str | Path | None = None,
    title: str | None = None,
    dataset: str = AUTO,
    notes: Sequence[str] = (),
) -> Report:
    """Read `sources` and report on them.

    Args:
        sources: Logs, ledgers or folders; a `name` groups runs that differ in σ only into one family.
        radii: ℓ2 radii on [0, 1] pixels, each ≥ 0, in any order; None takes those of the ledgers' recipes, or
            `DEFAULT_RADII` where no ledger has some.
        output: Folder to write to; None writes nothing.
        title: Heading; None makes one from the families' names.
        dataset: Which published results to stand beside: 'imagenet', 'cifar10', 'none', or 'auto' to go by
            the facts in ledgers (classes, image size, keys) and by the names and paths of logs.
        notes: Further remarks for the reader, shown after the report's own.

    Raises:
        InvalidInput: What cannot be read or asked for; the message names the file and the line.
    """
    asked = None if radii is None else _checked_radii(radii)
    runs = tuple(read_sources(sources))
    report = Report(
        title=title or _title(runs),
        runs=runs,
        summary=summarise(runs, asked if asked is not None else _own_radii(runs)),
        published=published_table(dataset, runs),
        notes=(*caveats(runs), *notes),
    )
    if output is not None:
        report.write(output)
    return report


def _checked_radii(radii: Sequence[float]) -> list[float]:
    if not radii:
        raise InvalidInput("no radius to report at: give at least one, as in 0,0.25,0.5")
    for radius in radii:
        if not (math.isfinite(radius) and radius >= 0):
            raise InvalidInput(f"radius {radius:g} cannot be: radii are finite and at least 0")
    return sorted({float(radius) for radius in radii})


def _own_radii(runs: Sequence[Certificates]) -> list[float]:
    """The radii that the ledgers were made for, all of them."""
    return sorted({radius for run in runs for radius in run.provenance.grid} or DEFAULT_RADII)


def _title(runs: Sequence[Certificates]) -> str:
    names = list(families(runs))
    if len(names) == 1:
        return f"How robust is {names[0]}?"
    return " and ".join(names) if len(names) == 2 else f"Certified robustness of {len(names)} models"
