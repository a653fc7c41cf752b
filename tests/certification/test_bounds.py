"""Clopper–Pearson and the radius: the reference's values, exact soundness in 40 digits, coverage by simulation."""

import json
import math
from decimal import Decimal
from pathlib import Path

import mpmath
import numpy as np
import pytest
from scipy.stats import binom, binomtest

from rrcm_dist.certification.statistics.bounds import (
    certified_radius,
    check_radii,
    clopper_pearson_lower,
    full_precision,
    largest_radius,
    round_down,
)
from rrcm_dist.errors import InvalidInput

REFERENCE = json.loads((Path(__file__).parent / "clopper_pearson_reference.json").read_text())


def exact_tail(trials: int, successes: int, p: float) -> mpmath.mpf:
    """P[Binomial(n, p) ≥ k] = I_p(k, n - k + 1) in 40 digits, by the continued fraction of the incomplete beta."""
    with mpmath.workdps(50):
        a, b, x = mpmath.mpf(successes), mpmath.mpf(trials - successes + 1), mpmath.mpf(p)
        if x > (a + 1) / (a + b + 2):
            return 1 - _fraction(b, a, 1 - x)
        return _fraction(a, b, x)


def _fraction(a: mpmath.mpf, b: mpmath.mpf, x: mpmath.mpf) -> mpmath.mpf:
    log_beta = mpmath.loggamma(a) + mpmath.loggamma(b) - mpmath.loggamma(a + b)
    front = mpmath.exp(a * mpmath.log(x) + b * mpmath.log1p(-x) - log_beta) / a
    c, d = mpmath.mpf(1), 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 100_000):
        for term in (m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
                     -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))):  # fmt: skip
            d, c = 1 / (1 + term * d), 1 + term / c
            value *= d * c
        if abs(d * c - 1) < mpmath.mpf(10) ** -42:
            return front * value
    raise ArithmeticError("the continued fraction did not converge")


def test_exact_tail_is_the_sum_of_the_binomial_probabilities():
    for n, k, p in [(1, 1, 0.3), (7, 1, 0.2), (20, 13, 0.5), (60, 59, 0.9), (60, 60, 0.99)]:
        with mpmath.workdps(50):
            x = mpmath.mpf(p)
            whole = mpmath.fsum(mpmath.binomial(n, j) * x**j * (1 - x) ** (n - j) for j in range(k, n + 1))
            assert abs(exact_tail(n, k, p) / whole - 1) < mpmath.mpf(10) ** -38


def test_bounds_and_radii_are_those_of_the_reference():
    assert len(REFERENCE) == 94
    for row in REFERENCE:
        bound = float(clopper_pearson_lower(row["successes"], row["n"], row["alpha"]))
        assert bound == pytest.approx(row["p_lower"], rel=1e-9, abs=0)
        if row["radius_sigma_1"] is None:
            assert bound < 0.5
        else:
            assert float(certified_radius(bound, 1.0)) == pytest.approx(row["radius_sigma_1"], rel=1e-9, abs=0)


def test_no_bound_is_above_the_exact_one():
    generator = np.random.default_rng(0)
    checked = 0
    for n in (1, 2, 3, 10, 37, 100, 1000, 10_000, 100_000, 1_000_000):
        successes = {1, 2, n // 2, n // 2 + 1, int(0.9 * n), int(0.999 * n), n - 1, n} | set(
            generator.integers(1, n + 1, 6)
        )
        for k in sorted(int(k) for k in successes if 1 <= k <= n):
            for alpha in (1e-9, 0.001, 0.05, 0.5, 0.999):
                bound = float(clopper_pearson_lower(k, n, alpha))
                assert exact_tail(n, k, bound) <= mpmath.mpf(alpha), (k, n, alpha)
                assert exact_tail(n, k, bound * (1 + 1e-9) if bound < 0.5 else 1 - (1 - bound) * (1 - 1e-6)) > alpha
                checked += 1
    assert checked > 400


def test_no_success_bounds_nothing_and_all_successes_stay_below_one():
    trials = np.array([1, 2, 10, 1000, 100_000, 10**8])
    assert (clopper_pearson_lower(np.zeros_like(trials), trials, 0.001) == 0.0).all()
    for n in trials:
        bound = float(clopper_pearson_lower(int(n), int(n), 0.001))
        with mpmath.workdps(50):
            assert bound <= mpmath.mpf(0.001) ** (mpmath.mpf(1) / int(n)) < 1


def test_no_radius_is_above_the_exact_one():
    generator = np.random.default_rng(1)
    near_half, near_one = 0.5 + 2.0 ** -np.arange(2, 53), 1 - 2.0 ** -np.arange(2, 53)
    for p in np.concatenate([[0.5], near_half, near_one, generator.uniform(0.5, 1, 1500)]):
        for sigma in (0.25, 1.0, 0.1):
            radius = float(certified_radius(p, sigma))
            with mpmath.workdps(50):
                assert mpmath.ncdf(mpmath.mpf(radius) / mpmath.mpf(sigma)) <= mpmath.mpf(float(p))
                closest = mpmath.mpf(radius) * (1 + mpmath.mpf(10) ** -14) / mpmath.mpf(sigma)
                assert p == 0.5 or mpmath.ncdf(closest) > mpmath.mpf(float(p))


def test_below_one_half_nothing_is_certified():
    assert (certified_radius([0.0, 0.3, 0.4999999], 0.5) == 0.0).all()


def test_the_bound_covers_the_truth_as_often_as_promised():
    generator = np.random.default_rng(2)
    trials, simulations = 1000, 200_000
    for alpha in (0.001, 0.05):
        for p in (0.5, 0.75, 0.9, 0.99, 0.999):
            bounds = clopper_pearson_lower(generator.binomial(trials, p, simulations), trials, alpha)
            failures = int((bounds > p).sum())
            assert binomtest(failures, simulations, alpha, alternative="greater").pvalue > 1e-4, (alpha, p, failures)


def test_the_exact_chance_of_failing_is_at_most_alpha_and_close_to_it():
    counts = np.arange(1001)
    bounds = clopper_pearson_lower(counts, 1000, 0.001)
    chances = [binom.pmf(counts[bounds > p], 1000, p).sum() for p in np.linspace(0.4, 0.99, 400)]
    assert max(chances) <= 0.001
    assert np.mean(chances) > 0.0005


def test_printed_numbers_are_never_above_the_value():
    for value in [0.25, 0.1, 0.7499999999, 3.811456563389914, 1e-9, 0.9995, 2.675]:
        for decimals in (0, 1, 3, 6):
            text = round_down(value, decimals)
            assert Decimal(text) <= Decimal(value)
            assert Decimal(value) - Decimal(text) < Decimal(1).scaleb(-decimals)
        assert float(full_precision(value)) == value
    assert round_down(0.7499999999, 3) == "0.749"


def test_the_largest_radius_is_that_of_unanimous_draws():
    assert largest_radius(100_000, 0.001, 0.5) == pytest.approx(0.5 * 3.8114565633899145, rel=1e-9)


@pytest.mark.parametrize(("successes", "trials", "alpha"), [
    (-1, 10, 0.1), (11, 10, 0.1), (0, 0, 0.1), (1, 10, 0.0), (1, 10, 1.0), (1, 10, -0.1), (1, 10, math.nan),
    (0.5, 10, 0.1),
])  # fmt: skip
def test_impossible_counts_and_confidences_are_refused(successes, trials, alpha):
    with pytest.raises(InvalidInput):
        clopper_pearson_lower(successes, trials, alpha)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_impossible_noise_is_refused(sigma):
    with pytest.raises(InvalidInput, match="sigma"):
        certified_radius(0.9, sigma)


def test_a_radius_out_of_reach_is_refused_with_the_largest_in_reach():
    check_radii([0.0, 1.9], 100_000, 0.001, [0.25, 0.5])
    with pytest.raises(InvalidInput, match=r"radius 2\.0 is out of reach.*at most 1\.9057"):
        check_radii([0.0, 2.0], 100_000, 0.001, [0.25, 0.5])
    with pytest.raises(InvalidInput, match="no radius"):
        check_radii([], 100, 0.001, [0.25])
    with pytest.raises(InvalidInput, match="at least 0"):
        check_radii([-0.5], 100, 0.001, [0.25])
