"""A band that holds the whole curve: simultaneous confidence over all radii, for the choice of test images.

Certified accuracy at r is 1 - F(r⁻) for the distribution F of the correct radius, so a band for a distribution function
is a band for the curve. The one used here has *equal local levels*: at every count k of N it is the Clopper–Pearson
interval of a proportion, at a level η at which N uniform order statistics all stay between their Beta quantiles with
probability 95 %, found by an exact recursion. It holds for every F, ties and jumps included, at every N.

Nair, "Confidence bands for survival functions with censored data", Technometrics 26, 1984 (equal precision);
Aldor-Noiman, Brown, Buja, Rolke & Stine, "The power to see", The American Statistician 67, 2013; Gontscharuk,
Landwehr & Finner, Biometrical Journal 58, 2016 (local levels). The recursion over a Poisson process: Moscovich &
Nadler, "Fast calculation of boundary crossing probabilities for Poisson processes", Statistics & Probability Letters
123, 2017.

Why not Kolmogorov's band, or its bound by Dvoretzky, Kiefer, Wolfowitz and Massart, ±√(ln(2/0.05) / 2N): it is as wide
at 2 % as at 50 %. For N = 500 and 2 % it says 0 to 8 %, this one 0.6 to 4.9 %; at 50 % it is the narrower by a sixth.
"""

import math
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, gammaln

from rrcm_dist.certification.statistics.bounds import clopper_pearson_lower
from rrcm_dist.reporting.measures.estimates import CONFIDENCE

TOLERANCE = 0.01
"""The band may be more certain than asked by this share of its error, never less."""


def simultaneous_band(successes: ArrayLike, trials: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the 95 % band, shaped as `successes` (counts of `trials` at any number of radii), within [0, 1]."""
    level = local_level(trials)
    k = np.asarray(successes, dtype=np.int64)
    return clopper_pearson_lower(k, trials, level / 2), 1 - clopper_pearson_lower(trials - k, trials, level / 2)


@cache
def local_level(trials: int, error: float = 1 - CONFIDENCE) -> float:
    """The two-sided level η of each interval at which all of them hold together with probability ≥ 1 - `error`.

    The error is nearly proportional to η, so few steps find it; what is returned has been computed to hold.
    """
    # Starting point: the asymptotic level of Gontscharuk & Finner, Statistical Papers 58, 2017, and its usual excess.
    spread = max(math.log(trials), 1.0)
    level = min(error, -math.log1p(-error) / (2 * max(math.log(spread), 0.5) * spread) * 0.55)
    sound, broken = 0.0, math.inf
    while True:
        together = 1 - all_within(trials, level)
        if error * (1 - TOLERANCE) <= together <= error:
            return level
        sound, broken = (level, broken) if together < error else (sound, level)
        guess = level * error * (1 - TOLERANCE / 2) / together
        level = guess if sound < guess < broken else (sound + min(broken, 1.0)) / 2


def all_within(trials: int, level: float) -> float:
    """P[every uniform order statistic U_(k) of `trials` lies within its own Beta quantiles level/2 and 1 - level/2].

    Exact but for rounding: the empirical count is a Poisson process of rate N given that it ends at N. Between the
    times at which a boundary moves, counts that have left it are struck out; the state is the window still allowed.
    """
    k = np.arange(1, trials + 1)
    earliest = betaincinv(k, trials - k + 1, level / 2)  # U_(k) ≥ this: count k is not reached before
    latest = betaincinv(k, trials - k + 1, 1 - level / 2)  # U_(k) ≤ this: count k is reached by then
    times = np.concatenate([earliest, latest, [1.0]])
    order = np.argsort(times, kind="stable")
    means = trials * np.diff(times[order], prepend=0.0)
    log_factorials = gammaln(np.arange(1, trials + 2))
    first, last, state = 0, 0, np.array([1.0])
    for position, mean in zip(order.tolist(), means.tolist(), strict=True):
        if mean > 0:
            state = np.convolve(state, _poisson(mean, last - first + 1, log_factorials))[: last - first + 1]
        if position < trials:
            last += 1  # from now on one more may have been reached
            state = np.append(state, 0.0)
        elif position < 2 * trials:
            first += 1  # and this one must have been
            state = state[1:]
    ends_at_all = trials * math.log(trials) - trials - log_factorials[-1]
    return float(min(state[-1] / math.exp(ends_at_all), 1.0))


def _poisson(mean: float, size: int, log_factorials: NDArray[np.float64]) -> NDArray[np.float64]:
    """P[Poisson(mean) = 0, 1, …], at most `size` terms, up to where they no longer count."""
    terms = min(size, int(mean + 8 * math.sqrt(mean) + 16))
    return np.exp(np.arange(terms) * math.log(mean) - mean - log_factorials[:terms])
