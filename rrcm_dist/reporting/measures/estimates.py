"""Values with their intervals: proportions (Wilson), means (Student t)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

CONFIDENCE = 0.95
"""Confidence level of every interval, band and bound in a report."""


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
    z = float(ndtri(0.5 + confidence / 2))
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
    """The mean of `values` (N,), with Student's t interval; none where all are equal, as for N = 1."""
    value = float(values.mean())
    if values.min() == values.max():
        return Estimate(value, math.nan, math.nan)
    half = float(stdtrit(len(values) - 1, 0.5 + CONFIDENCE / 2) * values.std(ddof=1) / math.sqrt(len(values)))
    return Estimate(value, value - half, value + half)
