"""Published results to stand beside one's own, and which of them fit the runs at hand."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from rrcm_dist.errors import InvalidInput

TABLES = Path(__file__).with_name("published.yaml")
AUTO, NONE = "auto", "none"
SPELLINGS = {"imagenet": ("imagenet",), "cifar10": ("cifar10", "cifar-10", "cifar_10")}
"""How a data set's name is spelled in run names and paths."""


@dataclass(frozen=True)
class PublishedMethod:
    """A method's certified accuracies in [0, 1], in the order of the table's radii; parameters in millions or None."""

    name: str
    accuracy: tuple[float, ...]
    parameters_million: float | None


@dataclass(frozen=True)
class PublishedTable:
    """Published results on one data set, and where they were published."""

    title: str
    source: str
    radii: tuple[float, ...]
    methods: tuple[PublishedMethod, ...]


@cache
def published_tables() -> dict[str, PublishedTable]:
    """All published tables by data set."""
    content = yaml.safe_load(TABLES.read_text(encoding="utf-8"))
    source = content.pop("source")
    return {name: _table(entry, source) for name, entry in content.items()}


def published_table(dataset: str, hints: Iterable[str]) -> PublishedTable | None:
    """The table for `dataset`: its name, 'none', or 'auto' to look for a data set's name in `hints` (names, paths).

    With 'auto', hints of several data sets, or of none, give no table.
    """
    tables = published_tables()
    if dataset == NONE:
        return None
    if dataset == AUTO:
        text = "\n".join(hints).lower()
        found = [name for name, spellings in SPELLINGS.items() if any(spelling in text for spelling in spellings)]
        return tables[found[0]] if len(found) == 1 else None
    if dataset not in tables:
        raise InvalidInput(f"no published results on {dataset!r}: give one of {', '.join(tables)}, {AUTO}, {NONE}")
    return tables[dataset]


def _table(entry: dict, source: str) -> PublishedTable:
    methods = (
        PublishedMethod(
            method["name"], tuple(value / 100 for value in method["accuracy"]), method.get("parameters_million")
        )
        for method in entry["methods"]
    )
    return PublishedTable(entry["title"], source, tuple(entry["radii"]), tuple(methods))
