"""`rrcm doctor`: what this machine can do."""

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from rrcm_dist.errors import RunFailure

if TYPE_CHECKING:
    from rrcm_dist.cli.doctor_checks import Check

WIDTH_OF_A_FILE = 160
"""Columns to print where the output is no terminal."""


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.", show_default=False)] = False,
) -> None:
    """Check this machine: Python, torch, CUDA, bf16, DeepSpeed, xFormers, loaders, tracking, memory, disk.

    Every line says what was found, what it is needed for and, where it is not well, how to mend it. What is optional
    may be missing; the exit code is 1 only where nothing works without it.

    ```sh
    rrcm doctor
    rrcm doctor --json
    ```
    """
    from rrcm_dist.cli.doctor_checks import all_checks
    from rrcm_dist.progress import progress_bar

    to_do, checks = all_checks(), []
    with progress_bar("looking", len(to_do), show=not as_json) as bar:
        for check in to_do:
            checks.append(check())
            bar.advance(note=checks[-1].name)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(check) for check in checks], indent=2, ensure_ascii=False))
    else:
        _show(checks)
    missing = [check.name for check in checks if check.status == "missing"]
    if missing:
        raise RunFailure(f"nothing works without what is missing here: {', '.join(missing)}")


def _show(checks: "list[Check]") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    marks = {"ok": "[green]ok[/]", "optional": "[dim]not here[/]", "warning": "[yellow]warning[/]"}
    table = Table(box=SIMPLE_HEAD)
    for heading in ("", "", "found", "needed for", "mend"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        mark = marks.get(check.status, "[bold red]MISSING[/]")
        table.add_row(mark, check.name, *map(escape, (check.found, check.needed_for, check.mend)))
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_A_FILE)
    console.print(table)
    if not any(check.status == "missing" for check in checks):
        console.print("everything essential is here")
