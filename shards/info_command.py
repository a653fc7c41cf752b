"""`python -m shards info`."""

import json
from typing import Annotated, Any

import typer

from rrcm_dist.files import gigabytes


def command(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder or URL of a dataset.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Show what a dataset holds: samples, classes, shards, bytes, formats, sizes of images."""
    from shards.summary import summarize

    figures = summarize(folder)
    if as_json:
        typer.echo(json.dumps(figures, indent=2, ensure_ascii=False))
    else:
        _print_table(figures)


def _print_table(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(figures["folder"]), show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    for name, value in _lines(figures):
        table.add_row(name, escape(value))
    Console().print(table)


def _lines(figures: dict[str, Any]) -> list[tuple[str, str]]:
    names = figures["class_names"]
    shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
    looked_at = figures["images_looked_at"]
    lines = [
        ("samples", f"{figures['samples']}"),
        ("classes", f"{figures['classes']} ({shown})"),
        ("samples per class", _range(figures["samples_per_class"])),
        ("shards", f"{figures['shards']}, {gigabytes(figures['bytes'])} in all"),
        ("samples per shard", _range(figures["samples_per_shard"])),
        ("bytes per shard", _range(figures["bytes_per_shard"], gigabytes)),
        ("bytes per image", _range(figures["bytes_per_image"], gigabytes)),
        ("formats", _counts(figures["formats"])),
        ("quarantined", f"{figures['quarantined']}" + (" (quarantine.tsv)" if figures["quarantined"] else "")),
    ]
    if "width" in looked_at:
        lines += [
            ("width", f"{_range(looked_at['width'])} pixels (of {looked_at['count']} images)"),
            ("height", f"{_range(looked_at['height'])} pixels"),
        ]
    lines.append(("colour modes", f"{_counts(looked_at['modes'])} (of {looked_at['count']} images)"))
    lines.append(("built from", ", ".join(f"{key} {value}" for key, value in figures["built"].items())))
    return lines


def _range(spread: dict[str, float], shown: Any = lambda value: f"{value:g}") -> str:
    if spread["least"] == spread["most"]:
        return f"{shown(spread['least'])}"
    return f"{shown(spread['least'])} to {shown(spread['most'])}, median {shown(spread['median'])}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
