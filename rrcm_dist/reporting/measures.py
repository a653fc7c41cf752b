"""What certificates add up to: certified accuracy, average certified radius, abstention; each with its uncertainty.

Certified accuracy at r is mean(correct and radius ≥ r), an abstention counting as wrong (Cohen et al. 2019, section 4);
the average certified radius is mean(correct · radius) (Zhai et al. 2020). The intervals speak of the choice of test
images: what another draw of as many images would have given.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rrcm_dist.reporting.certificates import Certificates

CONFIDENCE = 0.95
"""Confidence level of every interval in a report."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval [low, high]; NaN ends where N does not allow one."""

    value: float
    low: float
    high: float


def wilson_interval(
    successes: ArrayLike, trials: int, confidence: float = CONFIDENCE
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of Wilson's score interval for a proportion (Wilson 1927), shaped as `successes`, within [0, 1]."""
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    share = np.asarray(successes, dtype=np.float64) / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # At 0 and N successes an end is 0 or 1 exactly; the formula misses it by rounding.
    low = np.where(share == 0, 0.0, np.clip(centre - half, 0, 1))
    high = np.where(share == 1, 1.0, np.clip(centre + half, 0, 1))
    return low, high


def proportion(hits: NDArray[np.bool_]) -> Estimate:
    """The share of True in `hits` (N,), with Wilson's interval."""
    successes = int(hits.sum())
    low, high = wilson_interval(successes, len(hits))
    return Estimate(successes / len(hits), float(low), float(high))


def mean(values: NDArray[np.float64]) -> Estimate:
    """The mean of `values` (N,), with Student's t interval; no interval for N = 1."""
    value = float(values.mean())
    if len(values) < 2:
        return Estimate(value, math.nan, math.nan)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return Estimate(value, value - half, value + half)


def certified_accuracy(run: Certificates, radius: float) -> Estimate:
    """Share of images that are correct with a certified radius of at least `radius`."""
    return proportion(run.correct_radius >= radius)


def average_certified_radius(run: Certificates) -> Estimate:
    """Mean of correct · radius (in [0, 1]-pixel ℓ2 units)."""
    estimate = mean(np.where(run.correct, run.radius, 0.0))
    return Estimate(estimate.value, max(estimate.low, 0.0), estimate.high)


def abstention_rate(run: Certificates) -> Estimate:
    """Share of images for which the smoothed classifier tells no class."""
    return proportion(run.abstained)


def median_seconds(run: Certificates) -> float:
    """Median time for one image; NaN where no time is known."""
    known = run.seconds[np.isfinite(run.seconds)]
    return float(np.median(known)) if len(known) else math.nan


def certified_accuracy_curve(run: Certificates, radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 (3, R): certified accuracy at each of `radii` (R,), then the lower and the upper end of its interval."""
    ascending = np.sort(run.correct_radius)
    certified = run.images - np.searchsorted(ascending, radii, side="left")
    low, high = wilson_interval(certified, run.images)
    return np.stack([certified / run.images, low, high])


def best_of_sigma_curve(runs: Sequence[Certificates], radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 (R,): the highest certified accuracy of any of `runs` at each radius (the envelope papers print)."""
    return cast("NDArray[np.float64]", np.max([certified_accuracy_curve(run, radii)[0] for run in runs], axis=0))


def paired_difference(one: Certificates, other: Certificates) -> Estimate | None:
    """Average certified radius of `one` minus that of `other`, image by image; None unless both saw the same images.

    Pairing takes out how hard the images are, so its interval is narrower than the two single ones suggest.
    """
    if not np.array_equal(one.image, other.image):
        return None
    return mean(np.where(one.correct, one.radius, 0.0) - np.where(other.correct, other.radius, 0.0))
