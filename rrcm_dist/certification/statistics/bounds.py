"""From counts to a certified radius: Clopper–Pearson and R = σ Φ⁻¹(p_lower), in float64 and never rounded up.

Cohen, Rosenfeld & Kolter, "Certified adversarial robustness via randomized smoothing", ICML 2019 (Theorem 1 and section
3.2.2); Clopper & Pearson, Biometrika 26, 1934. This module knows neither torch nor files.
"""

import math
from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtri

from rrcm_dist.errors import InvalidInput

BETA_GUARD = 4e-12
"""Share of p·(1 - p) taken off Beta⁻¹: three times the largest error found against 40 digits, for n up to 10⁸."""
ROUNDING_GUARD = 4.5e-16
"""Share of p taken off Beta⁻¹ besides: two units in the last place, for where 1 - p is smaller than that."""
RADIUS_GUARD = 4e-15
"""Share taken off σ Φ⁻¹(p): seven times the largest error found against 40 digits, for p from 10⁻¹² to 1 - 2⁻⁵²."""


def clopper_pearson_lower(successes: ArrayLike, trials: ArrayLike, alpha: float) -> NDArray[np.float64]:
    """One-sided lower confidence bound of a binomial proportion, Beta⁻¹(α; k, n - k + 1), never above the exact value.

    `successes` k and `trials` n are integers with 0 ≤ k ≤ n and n ≥ 1, of shapes that broadcast; the result is
    float64 in [0, 1), 0 where k = 0. P[bound > p] ≤ α for every p.
    Raises `InvalidInput` for counts or an α that cannot be.
    """
    k, n = np.broadcast_arrays(np.asarray(successes), np.asarray(trials))
    _check_counts(k, n)
    check_alpha(alpha)
    some = k > 0
    exact = betaincinv(
        np.where(some, k, 1).astype(np.float64), (n - np.where(some, k, 1) + 1).astype(np.float64), alpha
    )
    guarded = exact - (BETA_GUARD * exact * (1.0 - exact) + ROUNDING_GUARD * exact)
    return np.where(some & np.isfinite(guarded), np.maximum(guarded, 0.0), 0.0)


def clopper_pearson_upper(successes: ArrayLike, trials: ArrayLike, alpha: float) -> NDArray[np.float64]:
    """One-sided upper confidence bound of a proportion, Beta⁻¹(1 - α; k + 1, n - k), never below the exact value.

    It is what the lower bound of the n - k others leaves. Arguments and errors are those of `clopper_pearson_lower`;
    the result is float64 in (0, 1], 1 where k = n. P[bound < p] ≤ α for every p.
    """
    k, n = np.broadcast_arrays(np.asarray(successes), np.asarray(trials))
    _check_counts(k, n)
    return np.minimum(np.nextafter(1.0 - clopper_pearson_lower(n - k, n, alpha), 2.0), 1.0)


def certified_radius(p_lower: ArrayLike, sigma: float) -> NDArray[np.float64]:
    """R = σ Φ⁻¹(p_lower) in the l2 norm of [0, 1] pixels, never above the exact value; 0 where p_lower ≤ ½.

    Whether an image is certified at all is `p_lower >= 0.5`, not `radius > 0`.
    """
    check_sigma(sigma)
    p = np.asarray(p_lower, dtype=np.float64)
    quantile = ndtri(np.maximum(p, 0.5))
    return sigma * quantile * (1.0 - RADIUS_GUARD)


def largest_radius(trials: int, alpha: float, sigma: float) -> float:
    """The radius of an image whose draws all agree: no other can be certified with so many draws at this α and σ."""
    return float(certified_radius(clopper_pearson_lower(trials, trials, alpha), sigma))


def round_down(value: float, decimals: int) -> str:
    """`value` in decimal notation with `decimals` places, rounded towards minus infinity, so never above `value`."""
    return str(Decimal(value).quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_FLOOR))


def round_up(value: float, decimals: int) -> str:
    """`value` in decimal notation with `decimals` places, rounded towards plus infinity, so never below `value`."""
    return str(Decimal(value).quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_CEILING))


def full_precision(value: float) -> str:
    """`value` in as many digits as reading the same float64 back needs; no digit is rounded."""
    return repr(float(value))


def shortest(value: float) -> str:
    """`full_precision` without a fraction of zero: '0', '0.25', '1'."""
    return full_precision(value).removesuffix(".0")


def check_alpha(alpha: float) -> None:
    """Raise `InvalidInput` unless α is a probability strictly between 0 and 1."""
    if not 0.0 < alpha < 1.0:
        raise InvalidInput(f"alpha must lie strictly between 0 and 1, as 0.001 does; given {alpha}")


def check_sigma(sigma: float) -> None:
    """Raise `InvalidInput` unless σ is a positive, finite number."""
    if not (sigma > 0.0 and math.isfinite(sigma)):
        raise InvalidInput(f"sigma must be a positive number, as 0.25 is; given {sigma}")


def check_radii(
    radii: Sequence[float],
    trials: int,
    alpha: float,
    sigmas: Sequence[float],
    reach: Callable[[int, float, float], float] = largest_radius,
) -> None:
    """Raise `InvalidInput` unless every radius is at least 0 and some σ can reach it with `trials` draws at α.

    `reach` gives the largest radius for (trials, α, σ): another bound than Clopper–Pearson's has its own.
    """
    if not radii:
        raise InvalidInput("no radius was given: give at least one, as 0.5")
    largest = max(reach(trials, alpha, sigma) for sigma in sigmas)
    for radius in radii:
        if not (radius >= 0.0 and math.isfinite(radius)):
            raise InvalidInput(f"a radius must be a number of at least 0; given {radius}")
        if radius > largest:
            raise InvalidInput(
                f"radius {radius} is out of reach: n {trials} draws at alpha {alpha} and sigma {max(sigmas)} certify "
                f"at most {round_down(largest, 4)}; ask for smaller radii, or raise n"
            )


def _check_counts(successes: np.ndarray, trials: np.ndarray) -> None:
    if successes.dtype.kind not in "iu" or trials.dtype.kind not in "iu":
        raise InvalidInput("successes and trials must be whole numbers")
    if (trials < 1).any():
        raise InvalidInput(f"trials must be at least 1; given {int(trials.min())}")
    if (successes < 0).any() or (successes > trials).any():
        raise InvalidInput("successes must lie between 0 and trials")
