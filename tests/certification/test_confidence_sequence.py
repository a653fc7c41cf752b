"""The time-uniform bound: its martingale and monotonicity exactly, and never above the exact value, in 50 digits."""

import math

import mpmath
import numpy as np
import pytest

from rrcm_dist.certification.statistics.bounds import clopper_pearson_lower
from rrcm_dist.certification.statistics.bounds import largest_radius as fixed_reach
from rrcm_dist.certification.statistics.confidence_sequence import (
    NEVER_FAILS,
    SHIFTS,
    SPREAD,
    TYPICAL_SHIFT,
    largest_radius,
    log_evidence,
    lower_bound,
    refutes,
)
from rrcm_dist.errors import InvalidInput

DIGITS = 50


def exact_weights() -> list[mpmath.mpf]:
    with mpmath.workdps(DIGITS):
        logs = [mpmath.log(mpmath.mpf(c) / mpmath.mpf(TYPICAL_SHIFT)) / mpmath.mpf(SPREAD) for c in SHIFTS[:-1]]
        density = [mpmath.exp(-(x**2) / 2) for x in logs]
        spread = [(1 - mpmath.mpf(NEVER_FAILS)) * d / mpmath.fsum(density) for d in density]
        return [*spread, mpmath.mpf(NEVER_FAILS)]


WEIGHTS = exact_weights()


def exact_evidence(agree: int, fail: int, p0: mpmath.mpf) -> mpmath.mpf:
    """The mixture of likelihood ratios, from the probabilities of success under each alternative."""
    with mpmath.workdps(DIGITS):
        total = mpmath.mpf(0)
        for weight, c in zip(WEIGHTS, SHIFTS, strict=True):
            failure = (1 - p0) * mpmath.exp(-mpmath.mpf(c) * mpmath.sqrt(p0 / (1 - p0)))
            total += weight * ((1 - failure) / p0) ** agree * (failure / (1 - p0)) ** fail
        return total


def test_the_evidence_is_the_mixture_of_likelihood_ratios_and_not_above_it():
    generator = np.random.default_rng(0)
    for n in (1, 7, 100, 3000, 100_000, 10_000_000):
        for p0 in (1e-4, 0.2, 0.5, 0.84, 0.99865, 1 - 1e-6):
            for agree in {0, n, n // 2, int(generator.binomial(n, p0))}:
                value = float(log_evidence(np.array(agree), np.array(n - agree), np.array(p0)))
                with mpmath.workdps(DIGITS):
                    exact = mpmath.log(exact_evidence(agree, n - agree, mpmath.mpf(p0)))
                assert value <= exact, (n, p0, agree)
                assert value == pytest.approx(float(exact), rel=1e-11, abs=1e-11), (n, p0, agree)


def test_the_evidence_is_expected_to_stay_at_one_under_the_null():
    with mpmath.workdps(DIGITS):
        assert abs(mpmath.fsum(WEIGHTS) - 1) < mpmath.mpf(10) ** -45
        for n in (1, 5, 30):
            for p0 in (mpmath.mpf("0.01"), mpmath.mpf("0.5"), mpmath.mpf("0.999")):
                chances = [mpmath.binomial(n, k) * p0**k * (1 - p0) ** (n - k) for k in range(n + 1)]
                mean = mpmath.fsum(c * exact_evidence(k, n - k, p0) for k, c in enumerate(chances))
                assert abs(mean - 1) < mpmath.mpf(10) ** -40


def test_the_evidence_falls_as_the_null_rises():
    nulls = np.concatenate([np.geomspace(1e-6, 0.5, 200), 1 - np.geomspace(0.499, 1e-6, 200)])
    for agree, fail in [(1, 0), (0, 1), (5, 5), (50, 50), (990, 10), (1000, 0), (3, 997), (70_000, 30_000)]:
        evidence = log_evidence(np.array(agree), np.array(fail), nulls)
        assert (np.diff(evidence) < 0).all(), (agree, fail)


def test_no_bound_is_above_the_exact_one_and_none_far_below():
    generator = np.random.default_rng(1)
    checked = 0
    for n in (1, 2, 3, 10, 37, 100, 1000, 10_000, 100_000, 1_000_000, 100_000_000):
        successes = {1, n // 2, int(0.9 * n), int(0.999 * n), n - 1, n, *generator.integers(1, n + 1, 3).tolist()}
        for k in sorted(k for k in successes if 1 <= k <= n):
            for alpha in (1e-9, 0.001, 0.05, 0.999):
                bound = float(lower_bound(k, n, alpha))
                with mpmath.workdps(DIGITS):
                    at, threshold = mpmath.mpf(bound), 1 / mpmath.mpf(alpha)
                    assert exact_evidence(k, n - k, at) >= threshold, (k, n, alpha)
                    above = at + at * (1 - at) * mpmath.mpf("1e-10") + mpmath.mpf(2) ** -52
                    assert above >= 1 or exact_evidence(k, n - k, above) < threshold, (k, n, alpha)
                checked += 1
    assert checked > 250


def test_it_is_below_clopper_pearson_and_below_the_observed_share():
    trials = np.array([1, 10, 100, 1000, 10_000, 100_000])[:, None]
    successes = np.unique((trials * np.linspace(0, 1, 101)).astype(np.int64), axis=1)
    for alpha in (1e-6, 0.001, 0.05):
        bound = lower_bound(successes, trials, alpha)
        assert (bound <= clopper_pearson_lower(successes, trials, alpha)).all()
        assert (bound <= successes / trials).all()
        assert ((bound >= 0) & (bound < 1)).all()


def test_without_a_success_or_a_draw_nothing_is_bounded():
    assert (lower_bound(np.zeros(4, np.int64), np.array([0, 1, 1000, 10**8]), 0.001) == 0).all()


def test_more_agreement_never_lowers_it():
    assert (np.diff(lower_bound(np.arange(1001), 1000, 0.001)) >= 0).all()


def test_the_reach_of_a_number_of_draws_is_a_little_below_that_of_clopper_pearson():
    assert (
        0.99 * fixed_reach(100_000, 0.001, 0.5) < largest_radius(100_000, 0.001, 0.5) < fixed_reach(100_000, 0.001, 0.5)
    )


def test_a_bound_does_not_depend_on_those_computed_with_it():
    successes = np.random.default_rng(2).integers(0, 5001, 300)
    together = lower_bound(successes, 5000, 0.001)
    assert (together == [float(lower_bound(int(k), 5000, 0.001)) for k in successes]).all()


def test_refuting_a_null_is_to_have_it_under_the_bound():
    successes = np.arange(0, 2001, 7)
    bounds = lower_bound(successes, 2000, 0.001)
    for p0 in (0.01, 0.5, 0.9, 0.99):
        assert (refutes(successes, 2000, p0, 0.001) == (bounds >= p0)).all()


@pytest.mark.parametrize(("successes", "trials", "alpha"), [
    (-1, 10, 0.1), (11, 10, 0.1), (1, 10, 0.0), (1, 10, 1.0), (1, 10, math.nan), (0.5, 10, 0.1),
])  # fmt: skip
def test_impossible_counts_and_confidences_are_refused(successes, trials, alpha):
    with pytest.raises(InvalidInput):
        lower_bound(successes, trials, alpha)
