"""`rrcm report`: tables and a page from certification logs and ledgers."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rrcm_dist.errors import InvalidInput

if TYPE_CHECKING:
    from rrcm_dist.reporting.certificates import Source
    from rrcm_dist.reporting.report import Report

STANDARD_OUTPUT = "-"
DEFAULT_FOLDER = Path("report")
WIDTH_OF_A_FILE = 160
"""Columns to print where the output is no terminal, so that no table is cut."""


def command(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH…", help="Logs, ledgers, or folders that hold some.")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=PATH", help="A further PATH whose runs are called LABEL; may be given repeatedly."),
    ] = None,
    radii: Annotated[
        str | None,
        typer.Option(
            help="ℓ2 radii, comma-separated.", show_default="those of the ledgers; else 0,0.25,0.5,0.75,1,1.5,2,2.5,3"
        ),
    ] = None,
    sigma: Annotated[float | None, typer.Option(help="Noise level of logs that do not state theirs.")] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="Chance that a certificate is wrong: ledgers are bounded at it, logs that do not state theirs get it.",
            show_default="that of the ledger or log",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report.html, .md, .tex, .csv, .json and figures.",
            show_default="report, unless --json or --csv",
        ),
    ] = None,
    figures: Annotated[
        bool, typer.Option(help="Write figures for papers (PDF, SVG, PNG) into the folder: a few seconds.")
    ] = True,
    json: Annotated[str | None, typer.Option(metavar="FILE|-", help="Write JSON; '-': to the terminal alone.")] = None,
    csv: Annotated[str | None, typer.Option(metavar="FILE|-", help="Write CSV; '-': to the terminal alone.")] = None,
    dataset: Annotated[
        str,
        typer.Option(
            help="Published results to show: imagenet, cifar10; of ℓ∞ mnist, cifar10, tinyimagenet; none, or auto."
        ),
    ] = "auto",
    title: Annotated[str | None, typer.Option(help="Heading of the page.", show_default="made from the names")] = None,
) -> None:
    """Report on certification runs: certified accuracy, average certified radius (ACR), abstention, and a page.

    PATH is a published log (tab-separated idx label predict radius correct time, with or without header), a ledger
    written by `rrcm certify`, or a folder with some. The noise level σ is read from a column, or from the path
    (sigma_0.25, noise_0.50), or given by --sigma. Runs whose names differ in σ only are one family and share an
    envelope; name families with --name.

    Published results stand beside one's own where --dataset names them; by auto, where a ledger's classes, image size
    and image keys are those of the data set, or a log's name or path says so.

    A dash stands where a run says nothing: at radii out of reach of its n draws, and in mode adaptive at radii that its
    recipe did not ask for. Runs of another mode, n or α than each other's are compared with a warning.

    Ledgers of `rrcm verify` are reported in sections of their own: ℓ∞ errors and ℓ2 radii never share a table.

    Accuracies have 95 % Wilson intervals, ACR a Student t interval; the bands of figures hold a whole curve. Families
    with a common σ are compared image by image. Where α is known, guaranteed accuracies take wrong certificates off.

    ```sh
    rrcm report certify/cifar10
    rrcm report --name "pre-trained=runs/a" --name "from scratch=runs/b" --output page
    rrcm report logs/sigma_0.25.tsv --radii 0,0.25,0.5 --alpha 0.001 --json -
    ```
    """
    from rrcm_dist.reporting.report import build_report

    if STANDARD_OUTPUT == json == csv:
        raise InvalidInput("--json - and --csv - both want the terminal: send one of them to a file")
    report = build_report(
        _sources(paths or [], name or [], sigma, alpha),
        None if radii is None else _radii(radii),
        title=title,
        dataset=dataset,
    )
    if output is None and json is None and csv is None:
        output = DEFAULT_FOLDER
    page = report.write(output, figures) if output is not None else None
    _write(report.json, json)
    _write(report.csv, csv)
    if STANDARD_OUTPUT not in (json, csv):
        _show(report, page)


def _sources(paths: Sequence[Path], names: Sequence[str], sigma: float | None, alpha: float | None) -> "list[Source]":
    from rrcm_dist.reporting.certificates import Source

    if sigma is not None and sigma <= 0:
        raise InvalidInput(f"--sigma {sigma:g} cannot be: the noise level is above 0")
    if alpha is not None and not 0 < alpha < 1:
        raise InvalidInput(f"--alpha {alpha:g} cannot be: it lies strictly between 0 and 1, as 0.001 does")
    sources = [Source(path, sigma=sigma, alpha=alpha) for path in paths]
    for text in names:
        label, separator, path = text.partition("=")
        if not (label.strip() and separator and path.strip()):
            raise InvalidInput(f"--name {text!r} is not LABEL=PATH, as in --name 'pre-trained=runs/a'")
        sources.append(Source(Path(path.strip()).expanduser(), label.strip(), sigma, alpha))
    return sources


def _radii(text: str) -> list[float]:
    try:
        return [float(piece) for piece in text.split(",")]
    except ValueError as error:
        raise InvalidInput(f"--radii {text!r} is not a list of numbers, as in 0,0.25,0.5") from error


def _write(text: Callable[[], str], target: str | None) -> None:
    from rrcm_dist.files import write_text

    if target == STANDARD_OUTPUT:
        sys.stdout.write(text())
    elif target is not None:
        write_text(target, text())


def _show(report: "Report", page: Path | None) -> None:
    from rich.console import Console

    from rrcm_dist.reporting.tables import terminal_tables
    from rrcm_dist.reporting.verification.tables import errors_terminal_table

    console = Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)
    if report.runs:
        console.print(
            "Certified accuracy in % at ℓ2 radius (±: the wider half of the 95 % Wilson interval)", highlight=False
        )
        for table in terminal_tables(report.summary):
            console.print(table)
    notes = report.notes
    if report.verification is not None:
        console.print(errors_terminal_table(report.verification.runs))
        notes += report.verification.notes
    for note in notes:
        console.print(f"· {note}", style="dim", highlight=False)
    if page is not None:
        console.print(f"page: {page}", highlight=False, soft_wrap=True)
