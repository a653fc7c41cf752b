"""A lower bound of a success probability that holds after every draw at once, so that looking often costs nothing.

For a null p0 and a shift c, let failures be e^(-x) times as likely, x = c √(p0 / (1 - p0)): for small c the
alternative lies c standard deviations of one draw above p0. The likelihood ratio of that alternative to p0 after A
successes and F failures is e^(-xF) (1 + (1 - p0)/p0 · (1 - e^(-x)))^A. Its average over shifts, by weights fixed
beforehand, is a test martingale at p0 and falls as p0 rises, so the p0 that it refutes are an interval (0, L], and L
never exceeds the true probability, over all times, except with chance α (Ville 1939; Robbins 1970). The proof is in
docs/adaptive.md.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from rrcm_dist.certification.statistics.bounds import certified_radius, check_alpha
from rrcm_dist.errors import InvalidInput

SHIFTS = np.append(0.003 * 1.3 ** np.arange(21), 1000.0)
"""c: a shift of c is seen after about (4 / c)² draws at α = 0.001, 50 to 2·10⁶; the last: no failure ever."""
TYPICAL_SHIFT = 0.045
SPREAD = 0.8
NEVER_FAILS = 0.05
"""Weight of the alternative without failures; the others' weights are normal in ln c around `TYPICAL_SHIFT`."""
GUARD = 64 * np.finfo(np.float64).eps
"""Share by which each logarithm is bounded; its float64 evaluation takes about ten roundings."""
NEWTON_STEPS = 40


def _log_weights() -> NDArray[np.float64]:
    density = np.exp(-0.5 * (np.log(SHIFTS[:-1] / TYPICAL_SHIFT) / SPREAD) ** 2)
    weights = np.append((1 - NEVER_FAILS) * density / density.sum(), NEVER_FAILS)
    return np.log(weights) - 1e-14  # so that they do not sum to more than 1 for all rounding


LOG_WEIGHTS = _log_weights()


def lower_bound(successes: ArrayLike, trials: ArrayLike, alpha: float) -> NDArray[np.float64]:
    """L after `successes` of `trials` draws: float64 in [0, 1), never above the exact value; 0 without a success.

    `successes` and `trials` are integers with 0 ≤ k ≤ n, of shapes that broadcast. Over the looks of one sequence of
    independent draws of success probability p, P[some L > p] ≤ α: the largest L so far is a bound as well.
    Raises `InvalidInput` for counts or an α that cannot be.
    """
    k, n = np.broadcast_arrays(np.asarray(successes), np.asarray(trials))
    _check_counts(k, n)
    check_alpha(alpha)
    result = np.zeros(k.shape)
    some = k > 0
    if some.any():
        agree, fail = k[some].astype(np.float64), (n[some] - k[some]).astype(np.float64)
        result[some] = _verified(_root(agree, fail, alpha), agree, fail, alpha)
    return result


def largest_radius(trials: int, alpha: float, sigma: float) -> float:
    """The radius of an image whose draws all agree: mode adaptive reaches none beyond with so many at this α and σ."""
    return float(certified_radius(lower_bound(trials, trials, alpha), sigma))


def refutes(successes: ArrayLike, trials: ArrayLike, p0: ArrayLike, alpha: float) -> NDArray[np.bool_]:
    """Whether the counts refute that the probability is at most p0 ∈ (0, 1), so that L ≥ p0; shapes broadcast."""
    k, n = np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    return log_evidence(k, n - k, np.asarray(p0, dtype=np.float64)) >= -np.log(alpha) * (1 + GUARD)


def log_evidence(agree: NDArray[np.float64], fail: NDArray[np.float64], p0: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln of the test martingale at p0 ∈ (0, 1) after so many draws of either kind, rounded down; shapes broadcast."""
    odds = (1.0 - p0) / p0
    shift = SHIFTS / np.sqrt(odds)[..., None]
    gain = np.log1p(odds[..., None] * -np.expm1(-shift))
    terms = LOG_WEIGHTS + agree[..., None] * gain * (1 - GUARD) - fail[..., None] * shift * (1 + GUARD)
    largest = terms.max(axis=-1)
    total = largest + np.log(np.exp(terms - largest[..., None]).sum(axis=-1))
    return total - GUARD * (1 + np.abs(total))


def _root(agree: NDArray[np.float64], fail: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """About where the evidence is 1/α: Newton's method in the logarithm of the odds of a failure, (images,).

    Each stops by itself, so that no result depends on the others computed with it.
    """
    guess = betaincinv(agree, fail + 1, alpha / 10)
    guess = np.where((guess > 0) & (guess < 1), guess, agree / (agree + fail + 1))
    log_odds = np.log1p(-guess) - np.log(guess)
    moving = np.ones(agree.shape, dtype=bool)
    for _ in range(NEWTON_STEPS):
        odds = np.exp(log_odds)
        shift = SHIFTS / np.sqrt(odds)[:, None]
        decrease = -np.expm1(-shift)
        ratio = odds[:, None] * decrease
        terms = LOG_WEIGHTS + agree[:, None] * np.log1p(ratio) - fail[:, None] * shift
        slopes = agree[:, None] * (ratio - odds[:, None] * (1 - decrease) * shift / 2) / (1 + ratio)
        slopes += fail[:, None] * shift / 2
        largest = terms.max(axis=-1)
        shares = np.exp(terms - largest[:, None])
        total = shares.sum(axis=-1)
        step = np.clip((largest + np.log(total) + np.log(alpha)) * total / (shares * slopes).sum(axis=-1), -1.0, 1.0)
        log_odds -= np.where(moving, step, 0.0)
        moving &= np.abs(step) > 1e-9
        if not moving.any():
            break
    return 1.0 / (1.0 + np.exp(log_odds))


def _verified(
    p: NDArray[np.float64], agree: NDArray[np.float64], fail: NDArray[np.float64], alpha: float
) -> NDArray[np.float64]:
    """`p`, taken down until its evidence, rounded down, is at least 1/α: then it is not above the exact bound."""
    p = np.minimum(p, 1.0 - np.finfo(np.float64).epsneg)
    share = 1e-14
    while True:
        doubtful = log_evidence(agree, fail, p) < -np.log(alpha) * (1 + GUARD)
        if not doubtful.any():
            return p
        p = np.where(doubtful, np.nextafter(p * np.maximum(1 - share * (1 - p), 0.5), 0), p)
        share *= 4


def _check_counts(successes: NDArray[np.integer], trials: NDArray[np.integer]) -> None:
    if successes.dtype.kind not in "iu" or trials.dtype.kind not in "iu":
        raise InvalidInput("successes and trials must be whole numbers")
    if (successes < 0).any() or (successes > trials).any():
        raise InvalidInput("successes must lie between 0 and trials")
