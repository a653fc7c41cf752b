"""A report: read runs, add them up, write the page and the tables.

The output folder holds

    report.html    the page: figures, tables, provenance; complete in itself
    report.md      the tables
    report.csv     one line per run
    verification.csv  the same of ℓ∞ verification, one line per run and ε: never in one table with ℓ2 radii
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
from rrcm_dist.reporting.published import AUTO, NONE, PublishedTable, published_table, published_tables
from rrcm_dist.reporting.reading.sources import read_sources
from rrcm_dist.reporting.summary import Summary, families, summarise
from rrcm_dist.reporting.text.documents import as_document, as_json, to_csv
from rrcm_dist.reporting.text.latex import latex_head, latex_table, latex_tables
from rrcm_dist.reporting.text.markdown import table_lines, to_markdown
from rrcm_dist.reporting.verification.documents import verification_csv, verification_document
from rrcm_dist.reporting.verification.published import published_verifications, verifications_beside
from rrcm_dist.reporting.verification.reading import VerificationRun
from rrcm_dist.reporting.verification.section import OTHER_GUARANTEE, VerificationSection, build_section
from rrcm_dist.reporting.verification.tables import verification_tables


@dataclass(frozen=True)
class Report:
    """A report in memory.

    Attributes:
        title: Heading.
        runs: What it is about, one per name and σ.
        summary: The numbers.
        published: Results to stand beside, or None.
        notes: What a reader must keep in mind.
        verification: ℓ∞ verification, apart from the rest; None where there is none.
    """

    title: str
    runs: tuple[Certificates, ...]
    summary: Summary
    published: PublishedTable | None
    notes: tuple[str, ...]
    verification: VerificationSection | None = None

    def document(self) -> dict[str, Any]:
        """All numbers as plain values; `rows` has one entry per run (see `text.documents.as_document`)."""
        told = as_document(self.summary) if self.runs else {}
        return told | ({} if self.verification is None else {"verification": verification_document(self.verification)})

    def json(self) -> str:
        """`document` as JSON text."""
        return as_json(self.document())

    def csv(self) -> str:
        """One line per run. Raises `InvalidInput` where there are both kinds of certificates."""
        if self.verification is None:
            return to_csv(self.summary)
        if self.runs:
            raise InvalidInput(
                "ℓ2 certificates and ℓ∞ verification have a table each: leave --csv out, the folder has both"
            )
        return verification_csv(self.verification)

    def markdown(self) -> str:
        """The tables and notes."""
        smoothing = to_markdown(self.summary, self.title, self.notes) if self.runs else f"# {self.title}\n"
        return smoothing if self.verification is None else smoothing + self._verification_markdown(self.verification)

    def latex(self) -> str:
        """The tables, for \\input."""
        head = latex_head(self.title)
        tables = [latex_tables(self.summary)] if self.runs else []
        if self.verification is not None:
            tables += [latex_table(table) for table in verification_tables(self.verification)]
        return "\n\n".join([head, *tables]) + "\n"

    def html(self) -> str:
        """The self-contained page."""
        return render_page(self.title, self.runs, self.summary, self.published, self.notes, self.verification)

    def _verification_markdown(self, section: VerificationSection) -> str:
        lines = ["", f"{OTHER_GUARANTEE}", ""] if self.runs else [""]
        for table in verification_tables(section):
            lines += [f"## {table.caption}", "", table.explanation, "", *table_lines(table), ""]
        return "\n".join([*lines, "## ℓ∞ verification: to keep in mind", "", *(f"- {n}" for n in section.notes), ""])

    def write(self, folder: str | Path, figures: bool = True) -> Path:
        """Write report.html, .md, .csv, .json, .tex and figures into `folder` (made if missing); returns the page's.

        `figures` False leaves out the figures for papers, which take a few seconds; the page has its own.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise InvalidInput(f"{folder} is a file: give a folder for the report")
        pieces = {
            "report.md": self.markdown(),
            "report.json": self.json(),
            "report.tex": self.latex(),
            "report.html": self.html(),
        }
        pieces |= {"report.csv": to_csv(self.summary)} if self.runs else {}
        pieces |= {} if self.verification is None else {"verification.csv": verification_csv(self.verification)}
        for name, text in pieces.items():
            write_text(folder / name, text)
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
        dataset: Which published results to stand beside: 'imagenet', 'cifar10', of ℓ∞ verification 'mnist', 'cifar10'
            or 'tinyimagenet', 'none', or 'auto' to go by the facts in ledgers (classes, image size, keys) and by the
            names and paths of logs.
        notes: Further remarks for the reader, shown after the report's own.

    Raises:
        InvalidInput: What cannot be read or asked for; the message names the file and the line.
    """
    asked = None if radii is None else _checked_radii(radii)
    runs, verified = read_sources(sources)
    _check_dataset(dataset, [*(published_tables() if runs else ()), *(published_verifications() if verified else ())])
    fitting = verifications_beside(dataset, (run.provenance.dataset for run in verified))
    of_smoothing = dataset if dataset in (AUTO, NONE, *published_tables()) else NONE
    report = Report(
        title=title or _title(runs, verified),
        runs=tuple(runs),
        summary=summarise(runs, asked if asked is not None else _own_radii(runs)),
        published=published_table(of_smoothing, runs) if runs else None,
        notes=(*(caveats(runs) if runs else ()), *notes),
        verification=build_section(verified, fitting),
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


def _check_dataset(dataset: str, published: Sequence[str]) -> None:
    known = dict.fromkeys(published)
    if dataset not in (AUTO, NONE, *known):
        raise InvalidInput(f"no published results on {dataset!r}: give one of {', '.join(known)}, {AUTO}, {NONE}")


def _title(runs: Sequence[Certificates], verified: Sequence[VerificationRun]) -> str:
    names = list(dict.fromkeys([*families(runs), *(run.name for run in verified)]))
    if len(names) == 1:
        return f"How robust is {names[0]}?"
    return " and ".join(names) if len(names) == 2 else f"Certified robustness of {len(names)} models"
