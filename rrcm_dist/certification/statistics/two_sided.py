"""Two-sided certificates: the candidate bounded from below, the runner-up from above, R = σ/2 (Φ⁻¹(p_A) - Φ⁻¹(p_B)).

Cohen, Rosenfeld & Kolter, "Certified adversarial robustness via randomized smoothing", ICML 2019, Theorem 1. α is split
in halves: one for the candidate, one for all other classes at once.

The runner-up is not known in advance, yet its half need not be split over the other classes. Let A be the candidate,
chosen by other draws, and let B be the most probable of the others: a class that no draw changes, though we do not know
it. The upper Clopper–Pearson bound U(k) rises with the count k, and the largest count M among the others is at least
the count k_B of B. So U(M) ≥ U(k_B), and P[U(M) < p_B] ≤ P[U(k_B) < p_B] ≤ α/2: U(M) bounds every class but A.
(A union bound over the K - 1 others spends α/(2 (K - 1)) on each, and is never tighter.) Where p_A ≥ p_lower holds,
1 - p_lower bounds every other class, too, at no cost.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from rrcm_dist.certification.statistics.bounds import (
    RADIUS_GUARD,
    check_alpha,
    check_sigma,
    clopper_pearson_lower,
    clopper_pearson_upper,
)
from rrcm_dist.errors import InvalidInput


def most_frequent_other(counts: np.ndarray, candidate: int) -> int:
    """The class with the largest of `counts`, int (classes,), but `candidate`; the lowest number among equals."""
    if len(counts) < 2:
        raise InvalidInput("there is no runner-up: two-sided bounds need at least two classes")
    others = counts.copy()
    others[candidate] = -1
    return int(np.argmax(others))


def simultaneous_bounds(
    candidate: ArrayLike, runner_up: ArrayLike, trials: ArrayLike, alpha: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(p_lower, p_upper): with confidence 1 - α the candidate is above the one, every other class below the other.

    `candidate` is how many of `trials` draws were given the candidate, `runner_up` the largest count among all other
    classes: integers of shapes that broadcast. The candidate must have been chosen without these draws. p_lower is
    never above the exact bound, p_upper never below. Raises `InvalidInput` for counts or an α that cannot be.
    """
    check_alpha(alpha)
    p_lower = clopper_pearson_lower(candidate, trials, alpha / 2)
    if (np.asarray(candidate) + np.asarray(runner_up) > np.asarray(trials)).any():
        raise InvalidInput("candidate and runner-up were given more draws together than there are")
    p_upper = clopper_pearson_upper(runner_up, trials, alpha / 2)
    return p_lower, np.minimum(p_upper, np.nextafter(1.0 - p_lower, 2.0))


def two_sided_radius(p_lower: ArrayLike, p_upper: ArrayLike, sigma: float) -> NDArray[np.float64]:
    """R = σ/2 (Φ⁻¹(p_lower) - Φ⁻¹(p_upper)) in the l2 norm of [0, 1] pixels, never above the exact value.

    0 where p_lower ≤ p_upper: whether an image is certified at all is `p_lower > p_upper`, not `radius > 0`.
    """
    check_sigma(sigma)
    lower, upper = np.broadcast_arrays(np.asarray(p_lower, np.float64), np.asarray(p_upper, np.float64))
    certified = lower > upper
    candidate, runner_up = ndtri(np.where(certified, lower, 0.75)), ndtri(np.where(certified, upper, 0.25))
    gap = candidate - runner_up - RADIUS_GUARD * (np.abs(candidate) + np.abs(runner_up))
    return np.where(certified, sigma / 2 * np.maximum(gap, 0.0) * (1.0 - RADIUS_GUARD), 0.0)
