"""Published ℓ∞ errors to stand beside one's own, and which of them fit the runs at hand."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import yaml

from rrcm_dist.reporting.published import AUTO, NONE, dataset_of_facts

TABLES = Path(__file__).with_name("published.yaml")
TINY_IMAGENET_KEY = re.compile(r"n\d{8}/")


@dataclass(frozen=True)
class PublishedErrors:
    """What a paper reports of one network: errors in [0, 1] of its whole test set."""

    dataset: str
    method: str
    network: str
    epochs: int | None
    epsilon: float
    clean: float
    verified: float


@dataclass(frozen=True)
class PublishedVerifications:
    """Published results on one data set, and where they were published."""

    title: str
    source: str
    results: tuple[PublishedErrors, ...]


@cache
def published_verifications() -> dict[str, PublishedVerifications]:
    """All published results by data set."""
    content = yaml.safe_load(TABLES.read_text(encoding="utf-8"))
    source = content.pop("source")
    return {
        name: PublishedVerifications(
            entry["title"], source, tuple(_result(entry["title"], result) for result in entry["results"])
        )
        for name, entry in content.items()
    }


def dataset_of(classes: int, image_size: int, keys: Iterable[str]) -> str | None:
    """The data set that has so many classes, images of that size, and keys that begin as its do; or None.

    MNIST has nothing in its facts that other sets of small grey images lack: it has to be named.
    """
    keys = list(keys)
    if (classes, image_size) == (200, 64) and all(map(TINY_IMAGENET_KEY.match, keys)):
        return "tinyimagenet"
    found = dataset_of_facts(classes, image_size, keys)
    return found if found in published_verifications() else None


def verifications_beside(dataset: str, datasets: Iterable[str | None]) -> PublishedVerifications | None:
    """The results on `dataset`: its name, 'none', or 'auto' for the one that all runs are on; None where there are
    none."""
    if dataset == NONE:
        return None
    if dataset == AUTO:
        found = set(datasets)
        dataset = (found.pop() or NONE) if len(found) == 1 else NONE
    return published_verifications().get(dataset)


def _result(dataset: str, entry: dict) -> PublishedErrors:
    return PublishedErrors(
        dataset, entry["method"], entry["network"], entry["epochs"], float(Fraction(entry["epsilon"])),
        entry["clean"] / 100, entry["verified"] / 100,
    )  # fmt: skip
