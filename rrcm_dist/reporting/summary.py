"""The numbers of a report: one row per run, one envelope per family, and families compared where they can be."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rrcm_dist.reporting.certificates import Certificates
from rrcm_dist.reporting.measures import (
    Estimate,
    abstention_rate,
    average_certified_radius,
    certified_accuracy,
    median_seconds,
    paired_difference,
)

DRAWS = {"n0": "n0", "n": "n", "alpha": "α"}
"""Settings of the bounds, and how they are shown."""


@dataclass(frozen=True)
class Row:
    """One run at one σ; `certified_accuracy` by radius, `median_seconds` NaN where no time is known.

    `draws` says n0, n and α, as far as they are known: 'n0 100, n 100000, α 0.001'.
    """

    name: str
    sigma: float
    images: int
    draws: str
    acr: Estimate
    abstain: Estimate
    clean_accuracy: Estimate
    certified_accuracy: dict[float, Estimate]
    median_seconds: float


@dataclass(frozen=True)
class Envelope:
    """A family's best σ at each radius: `best` holds (σ, its certified accuracy) by radius."""

    name: str
    sigmas: tuple[float, ...]
    best: dict[float, tuple[float, Estimate]]


@dataclass(frozen=True)
class Comparison:
    """Average certified radius of `name` minus that of `other` at one σ, paired by image."""

    name: str
    other: str
    sigma: float
    images: int
    difference: Estimate


@dataclass(frozen=True)
class Summary:
    """All numbers of a report at `radii`."""

    radii: tuple[float, ...]
    rows: tuple[Row, ...]
    envelopes: tuple[Envelope, ...]
    comparisons: tuple[Comparison, ...]


def families(runs: Sequence[Certificates]) -> dict[str, list[Certificates]]:
    """Runs by name, names in the order of their first run, σ ascending."""
    by_name: dict[str, list[Certificates]] = {}
    for run in runs:
        by_name.setdefault(run.name, []).append(run)
    return {name: sorted(members, key=lambda run: run.sigma) for name, members in by_name.items()}


def summarise(runs: Sequence[Certificates], radii: Sequence[float]) -> Summary:
    """All numbers of a report on `runs` at `radii` (ascending)."""
    by_name = families(runs)
    rows = tuple(_row(run, radii) for members in by_name.values() for run in members)
    envelopes = tuple(_envelope(name, [row for row in rows if row.name == name], radii) for name in by_name)
    return Summary(tuple(radii), rows, envelopes, tuple(_comparisons(by_name)))


def _row(run: Certificates, radii: Sequence[float]) -> Row:
    return Row(
        name=run.name,
        sigma=run.sigma,
        images=run.images,
        draws=_draws(run),
        acr=average_certified_radius(run),
        abstain=abstention_rate(run),
        clean_accuracy=certified_accuracy(run, 0.0),
        certified_accuracy={radius: certified_accuracy(run, radius) for radius in radii},
        median_seconds=median_seconds(run),
    )


def _draws(run: Certificates) -> str:
    known = run.provenance.settings
    return ", ".join(f"{shown} {known[key]}" for key, shown in DRAWS.items() if key in known)


def _envelope(name: str, rows: Sequence[Row], radii: Sequence[float]) -> Envelope:
    best = {}
    for radius in radii:
        row = max(rows, key=lambda row: row.certified_accuracy[radius].value)
        best[radius] = (row.sigma, row.certified_accuracy[radius])
    return Envelope(name, tuple(row.sigma for row in rows), best)


def _comparisons(by_name: dict[str, list[Certificates]]) -> Iterator[Comparison]:
    for (name, runs), (other, others) in combinations(by_name.items(), 2):
        for run in runs:
            for rival in others:
                difference = paired_difference(run, rival) if rival.sigma == run.sigma else None
                if difference is not None:
                    yield Comparison(name, other, run.sigma, run.images, difference)


def caveats(runs: Sequence[Certificates]) -> list[str]:
    """What a reader must know before believing the numbers of these very runs, most important first."""
    said = []
    fewest = min(run.images for run in runs)
    points = 100 * 0.5 / np.sqrt(fewest)
    said.append(
        f"{fewest} images{' in the smallest run' if len({run.images for run in runs}) > 1 else ''}: "
        f"the standard error of an accuracy near 50 % is {points:.1f} points."
    )
    by_name = families(runs)
    if any(len(members) > 1 for members in by_name.values()):
        said.append(
            "Best of σ is a convention for curves of a data set: it picks the σ after looking, so its interval is "
            "that of the σ picked and a little optimistic. Every σ stands beside it."
        )
    for name, members in by_name.items():
        if any(not np.array_equal(members[0].image, run.image) for run in members[1:]):
            said.append(f"The runs of {name} were certified on different images: their envelope mixes test sets.")
    rounded = sum(run.provenance.rounded for run in runs)
    if rounded:
        which = "The radii of these logs" if rounded == len(runs) else f"The radii of {rounded} of {len(runs)} runs"
        said.append(f"{which} stand in the file with three significant digits: some were rounded up across a radius.")
    return said
