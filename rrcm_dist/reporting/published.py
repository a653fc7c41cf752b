"""Published results to stand beside one's own, and which of them fit the runs at hand."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from rrcm_dist.errors import InvalidInput
from rrcm_dist.reporting.certificates import Certificates

TABLES = Path(__file__).with_name("published.yaml")
AUTO, NONE = "auto", "none"
SPELLINGS = {"imagenet": ("imagenet",), "cifar10": ("cifar10", "cifar-10", "cifar_10")}
"""How a data set's name is spelled in the names and paths of logs."""


@dataclass(frozen=True)
class Facts:
    """What a ledger on a data set says of it: classes, least and greatest image size, how the images' keys begin."""

    classes: int
    image_sizes: tuple[int, int]
    key: re.Pattern[str]


CIFAR10_FOLDERS = "data_batch_[1-5]|test_batch|airplane|automobile|bird|cat|deer|dog|frog|horse|ship|truck"
FACTS = {
    "imagenet": Facts(1000, (224, 512), re.compile(r"n\d{8}/")),
    "cifar10": Facts(10, (32, 32), re.compile(rf"(?:{CIFAR10_FOLDERS})/")),
}


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


def dataset_of_facts(classes: int, image_size: int, keys: Iterable[str]) -> str | None:
    """The data set that has so many classes, images of that size, and keys that begin as its do; or None.

    Names and paths have no say: any data may be certified by a recipe that is called after another data set.
    """
    keys = list(keys)
    for name, facts in FACTS.items():
        least, greatest = facts.image_sizes
        if classes == facts.classes and least <= image_size <= greatest and all(map(facts.key.match, keys)):
            return name
    return None


def published_table(dataset: str, runs: Sequence[Certificates]) -> PublishedTable | None:
    """The table for `dataset`: its name, 'none', or 'auto' for the data set that `runs` are on.

    With 'auto', a ledger goes by its facts and a log by its name and path. Runs on several data sets, on none that is
    known, or a ledger on another one, give no table.
    """
    tables = published_tables()
    if dataset == NONE:
        return None
    if dataset == AUTO:
        found = {name for run in runs for name in _datasets_of(run)}
        return tables.get(found.pop() or NONE) if len(found) == 1 else None
    if dataset not in tables:
        raise InvalidInput(f"no published results on {dataset!r}: give one of {', '.join(tables)}, {AUTO}, {NONE}")
    return tables[dataset]


def _datasets_of(run: Certificates) -> list[str | None]:
    origin = run.provenance
    if origin.kind == "ledger":
        return [origin.dataset]
    text = "\n".join((run.name, origin.path.name, origin.path.parent.name)).lower()
    return [name for name, spellings in SPELLINGS.items() if any(spelling in text for spelling in spellings)]


def _table(entry: dict, source: str) -> PublishedTable:
    methods = (
        PublishedMethod(
            method["name"], tuple(value / 100 for value in method["accuracy"]), method.get("parameters_million")
        )
        for method in entry["methods"]
    )
    return PublishedTable(entry["title"], source, tuple(entry["radii"]), tuple(methods))
