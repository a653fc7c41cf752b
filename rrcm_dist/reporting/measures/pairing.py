"""Two runs compared image by image. Pairing takes out how hard the images are.

- certified accuracy at a radius: difference of two paired proportions with Newcombe's interval (his method 10, from
  the two Wilson intervals and their correlation; Statistics in Medicine 17, 1998), and the exact two-sided McNemar
  test: of the images that one run alone certifies, as many should fall to either (Binomial(n, ½); McNemar,
  Psychometrika 12, 1947).
- the whole difference curve: a band of one width, the 95 % quantile of the largest deviation over all radii, by a
  Gaussian multiplier bootstrap (Giné & Zinn, Annals of Probability 18, 1990; van der Vaart & Wellner, Weak Convergence
  and Empirical Processes, 1996, chapter 2.9). Its confidence is asymptotic: near for a hundred images or more.
- average certified radius: Student's t interval of the differences.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from rrcm_dist.reporting.certificates import Certificates
from rrcm_dist.reporting.measures.estimates import CONFIDENCE, Estimate, mean, wilson_interval

REPLICATES = 2000
"""Bootstrap replicates of a band: its width is known to about 1.5 %."""
SEED = 20190409
"""Key of the band's own Philox stream (the project's streams need torch): the same runs give the same band."""
FEWEST = 2
"""Images that two runs must share to be compared."""


@dataclass(frozen=True)
class PairedAccuracy:
    """Certified accuracy of one run minus that of another at one radius, on the same images.

    `only_one` and `only_other` count the images that one run alone certifies; `p_value` is McNemar's, exact, two-sided.
    """

    difference: Estimate
    only_one: int
    only_other: int
    p_value: float


@dataclass(frozen=True)
class Pairs:
    """The images that two runs share: the correct radius of each, float64 (N,), -1 where not correct."""

    one: NDArray[np.float64]
    other: NDArray[np.float64]

    @property
    def images(self) -> int:
        """N, the images shared."""
        return len(self.one)


def pair(one: Certificates, other: Certificates) -> Pairs | None:
    """The images certified by both; None for fewer than two, or where a label says that the images are not the same."""
    _, here, there = np.intersect1d(one.image, other.image, assume_unique=True, return_indices=True)
    if len(here) < FEWEST or not np.array_equal(one.label[here], other.label[there]):
        return None
    return Pairs(one.correct_radius[here], other.correct_radius[there])


def paired_radius(pairs: Pairs) -> Estimate:
    """Average certified radius of one run minus that of the other."""
    return mean(np.maximum(pairs.one, 0.0) - np.maximum(pairs.other, 0.0))


def paired_accuracy(pairs: Pairs, radius: float) -> PairedAccuracy:
    """Certified accuracy at `radius` of one run minus that of the other."""
    first, second = pairs.one >= radius, pairs.other >= radius
    both, only_one = int((first & second).sum()), int((first & ~second).sum())
    only_other = int((~first & second).sum())
    difference = newcombe_interval(both, only_one, only_other, pairs.images)
    return PairedAccuracy(difference, only_one, only_other, mcnemar(only_one, only_other))


def mcnemar(only_one: int, only_other: int) -> float:
    """The exact two-sided p-value of so many images certified by one run alone and so many by the other alone."""
    return min(1.0, 2 * float(bdtr(min(only_one, only_other), only_one + only_other, 0.5)))


def newcombe_interval(both: int, only_one: int, only_other: int, trials: int) -> Estimate:
    """Difference of two paired proportions with its 95 % interval, Newcombe 1998, method 10."""
    neither = trials - both - only_one - only_other
    first, second = both + only_one, both + only_other
    (low_one, low_other), (high_one, high_other) = wilson_interval([first, second], trials)
    p_one, p_other = first / trials, second / trials
    margins = math.sqrt(first * (trials - first) * second * (trials - second))
    agreement = float(both * neither - only_one * only_other)
    if agreement > 0:
        agreement = max(agreement - trials / 2, 0.0)
    correlation = agreement / margins if margins else 0.0
    gap = (only_one - only_other) / trials
    below = _joined(p_one - low_one, high_other - p_other, correlation)
    above = _joined(high_one - p_one, p_other - low_other, correlation)
    return Estimate(gap, max(gap - below, -1.0), min(gap + above, 1.0))


def difference_curve(pairs: Pairs, radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 (R,): certified accuracy of one run minus that of the other at each of `radii` (R,)."""
    certified = [np.searchsorted(np.sort(run), radii, side="left") for run in (pairs.one, pairs.other)]
    return (certified[1] - certified[0]) / pairs.images


def band_half_width(pairs: Pairs, confidence: float = CONFIDENCE, replicates: int = REPLICATES) -> float:
    """Half the width of the band around the difference curve that holds all of it, over every radius ≥ 0."""
    radii = np.concatenate([pairs.one, pairs.other])
    order = np.argsort(-radii, kind="stable")
    # Between the radii of images nothing changes; of images that share one, the last carries the whole step.
    ends = np.flatnonzero(np.append(np.diff(radii[order]) != 0, True) & (radii[order] >= 0))
    if not len(ends):
        return 0.0
    signs = np.repeat([1.0, -1.0], pairs.images)[order]
    image = np.tile(np.arange(pairs.images), 2)[order]
    centre = np.cumsum(signs)[ends] / pairs.images
    generator = np.random.Generator(np.random.Philox(key=SEED))
    largest = np.empty(replicates)
    for replicate in range(replicates):
        weights = generator.standard_normal(pairs.images)
        deviations = np.cumsum(signs * weights[image])[ends] - centre * weights.sum()
        largest[replicate] = np.abs(deviations).max()
    return float(np.quantile(largest, confidence, method="higher")) / pairs.images


def _joined(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(one * one - 2 * correlation * one * other + other * other, 0.0))
