"""The numbers of a report: one row per run, one envelope per family, and families compared where they can be."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rrcm_dist.reporting.certificates import Certificates
from rrcm_dist.reporting.likeness import same_mode, unlike
from rrcm_dist.reporting.measures.accuracy import (
    abstention_rate,
    average_certified_radius,
    certified_accuracy,
    certified_counts,
)
from rrcm_dist.reporting.measures.bands import simultaneous_band
from rrcm_dist.reporting.measures.effort import Effort, effort
from rrcm_dist.reporting.measures.estimates import Estimate
from rrcm_dist.reporting.measures.guarantees import Guarantee, guarantee
from rrcm_dist.reporting.measures.pairing import (
    PairedAccuracy,
    Pairs,
    band_half_width,
    pair,
    paired_accuracy,
    paired_radius,
)

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Shares of the images at which the distribution of p_A is told."""
DRAWS = {"n0": "n0", "n": "n", "alpha": "α", "made at alpha": "made at α"}
"""Settings of the bounds, and how they are shown."""


@dataclass(frozen=True)
class Row:
    """One run at one σ.

    Attributes:
        name, sigma, images: Which run, and on how many images.
        draws: n0, n and α, as far as they are known: 'n0 100, n 100000, α 0.001'.
        acr, abstain: Average certified radius and abstention rate.
        clean_accuracy: Certified accuracy at r = 0; None where mode adaptive did not decide it.
        gaps: Why nothing is known at a radius, for those of the summary that have no certified accuracy.
        certified_accuracy: By radius, each with its own interval; like `band` and `guarantee` without the gaps.
        band: By radius, the ends of the band that holds the whole curve.
        guarantee: Lower bounds of the true certified accuracy; None where α is not known.
        agreement: p_A at `QUANTILES` of the images, NaN where not known.
        failed: Images that were given up.
        effort: What the certificates cost.
    """

    name: str
    sigma: float
    images: int
    draws: str
    acr: Estimate
    abstain: Estimate
    clean_accuracy: Estimate | None
    gaps: dict[float, str]
    certified_accuracy: dict[float, Estimate]
    band: dict[float, tuple[float, float]]
    guarantee: Guarantee | None
    agreement: dict[float, float]
    failed: int
    effort: Effort


@dataclass(frozen=True)
class Envelope:
    """A family's best σ: `best` holds (σ, its certified accuracy) by radius, where some σ says anything."""

    name: str
    sigmas: tuple[float, ...]
    best: dict[float, tuple[float, Estimate]]


@dataclass(frozen=True)
class Comparison:
    """`name` minus `other` at one σ, image by image.

    Attributes:
        name, other, sigma: Which runs.
        images: How many images they share.
        difference: Of average certified radius.
        accuracy: Of certified accuracy, by radius, where both runs say something.
        gaps: Why there is none, by radius.
        unlike: How the two runs were made differently, as remarks; the mode first.
        same_mode: Whether ACR may be compared.
        half_width: Of the band that holds the whole difference curve of certified accuracy.
        pairs: The images themselves.
    """

    name: str
    other: str
    sigma: float
    images: int
    difference: Estimate
    accuracy: dict[float, PairedAccuracy]
    gaps: dict[float, str]
    unlike: tuple[str, ...]
    same_mode: bool
    half_width: float
    pairs: Pairs


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
    return Summary(tuple(radii), rows, envelopes, tuple(_comparisons(by_name, radii)))


def _row(run: Certificates, radii: Sequence[float]) -> Row:
    gaps = _gaps(radii, run)
    answered = tuple(radius for radius in radii if radius not in gaps)
    counts = certified_counts(run, answered)
    low, high = simultaneous_band(counts, run.images)
    alpha = run.provenance.alpha
    return Row(
        name=run.name,
        sigma=run.sigma,
        images=run.images,
        draws=_draws(run),
        acr=average_certified_radius(run),
        abstain=abstention_rate(run),
        clean_accuracy=None if run.gap(0.0) else certified_accuracy(run, 0.0),
        gaps=gaps,
        certified_accuracy={radius: certified_accuracy(run, radius) for radius in answered},
        band={radius: (float(low[k]), float(high[k])) for k, radius in enumerate(answered)},
        guarantee=None if alpha is None else guarantee(counts, answered, run.images, alpha),
        agreement=_agreement(run),
        failed=len(run.failures),
        effort=effort(run),
    )


def _gaps(radii: Sequence[float], *runs: Certificates) -> dict[float, str]:
    """Why one of `runs` says nothing, at those of `radii` where it does not."""
    told = {radius: next(filter(None, (run.gap(radius) for run in runs)), "") for radius in radii}
    return {radius: gap for radius, gap in told.items() if gap}


def _agreement(run: Certificates) -> dict[float, float]:
    """p_A at `QUANTILES` of all images; those of which it is not known abstain, so they stand below all others."""
    values = np.quantile(np.where(np.isnan(run.agreement), -np.inf, run.agreement), QUANTILES, method="lower")
    return {share: float(p) if np.isfinite(p) else np.nan for share, p in zip(QUANTILES, values, strict=True)}


def _draws(run: Certificates) -> str:
    known, most = run.provenance.settings, "at most " if run.provenance.mode == "adaptive" else ""
    told = (f"{shown} {most if key == 'n' else ''}{known[key]}" for key, shown in DRAWS.items() if key in known)
    return ", ".join(told)


def _envelope(name: str, rows: Sequence[Row], radii: Sequence[float]) -> Envelope:
    best = {}
    for radius in radii:
        known = [(row.sigma, row.certified_accuracy[radius]) for row in rows if radius not in row.gaps]
        if known:
            best[radius] = max(known, key=lambda pair: pair[1].value)
    return Envelope(name, tuple(row.sigma for row in rows), best)


def _comparisons(by_name: dict[str, list[Certificates]], radii: Sequence[float]) -> Iterator[Comparison]:
    for runs, others in combinations(by_name.values(), 2):
        for run in runs:
            for rival in others:
                pairs = pair(run, rival) if rival.sigma == run.sigma else None
                if pairs is not None:
                    yield _comparison(run, rival, pairs, radii)


def _comparison(run: Certificates, rival: Certificates, pairs: Pairs, radii: Sequence[float]) -> Comparison:
    gaps = _gaps(radii, run, rival)
    return Comparison(
        name=run.name,
        other=rival.name,
        sigma=run.sigma,
        images=pairs.images,
        difference=paired_radius(pairs),
        accuracy={radius: paired_accuracy(pairs, radius) for radius in radii if radius not in gaps},
        gaps=gaps,
        unlike=unlike(run.provenance, rival.provenance),
        same_mode=same_mode(run.provenance, rival.provenance),
        half_width=band_half_width(pairs),
        pairs=pairs,
    )
