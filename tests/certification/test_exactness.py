"""Bounds and radii are never on the wrong side of the exact value: checked in 40 digits on a large grid."""

from decimal import Decimal

import mpmath
import numpy as np
import pytest

from rrcm_dist.certification.statistics.bounds import (
    certified_radius,
    clopper_pearson_lower,
    clopper_pearson_upper,
    full_precision,
    round_down,
)
from rrcm_dist.certification.statistics.two_sided import simultaneous_bounds, two_sided_radius

SIGMAS = (0.25, 0.5, 1.0, 0.12, 0.1, 2.0)
"""Those of the recipes and of the published tables, and some that are no powers of two."""
TRIALS = (1, 2, 3, 10, 37, 100, 500, 1000, 10_000, 99_999, 100_000, 1_000_000)
ALPHAS = (1e-9, 1e-6, 0.0005, 0.001, 0.05, 0.5, 0.999)


def exact_tail(trials: int, successes: int, p: mpmath.mpf | float) -> mpmath.mpf:
    """P[Binomial(n, p) ≥ k] = I_p(k, n - k + 1) in 40 digits, by the continued fraction of the incomplete beta."""
    with mpmath.workdps(50):
        a, b, x = mpmath.mpf(successes), mpmath.mpf(trials - successes + 1), mpmath.mpf(p)
        if successes == 0:
            return mpmath.mpf(1)
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


def exact_head(trials: int, successes: int, p: float) -> mpmath.mpf:
    """P[Binomial(n, p) ≤ k] in 40 digits: the failures are at least n - k."""
    with mpmath.workdps(50):
        return exact_tail(trials, trials - successes, 1 - mpmath.mpf(p))


def exact_quantile(p: float) -> mpmath.mpf:
    """Φ⁻¹(p) in 45 digits, by Newton's method."""
    with mpmath.workdps(60):
        x = mpmath.mpf(0)
        for _ in range(200):
            step = (mpmath.ncdf(x) - mpmath.mpf(p)) / mpmath.npdf(x)
            x -= max(min(step, mpmath.mpf(1)), mpmath.mpf(-1))
            if abs(step) < mpmath.mpf(10) ** -50:
                return x
    raise ArithmeticError("Newton's method did not converge")


def some_counts(trials: int, generator: np.random.Generator) -> list[int]:
    """Counts 0 … n: the ends, around one half, and some drawn by chance."""
    known = {0, 1, 2, trials // 2, trials // 2 + 1, int(0.9 * trials), int(0.999 * trials), trials - 1, trials}
    drawn = known | set(generator.integers(0, trials + 1, 6).tolist())
    return sorted(count for count in drawn if 0 <= count <= trials)


def test_exact_tail_is_the_sum_of_the_binomial_probabilities():
    for n, k, p in [(1, 1, 0.3), (7, 0, 0.2), (7, 1, 0.2), (20, 13, 0.5), (60, 59, 0.9), (60, 60, 0.99)]:
        with mpmath.workdps(50):
            x = mpmath.mpf(p)
            terms = [mpmath.binomial(n, j) * x**j * (1 - x) ** (n - j) for j in range(n + 1)]
            assert abs(exact_tail(n, k, p) / mpmath.fsum(terms[k:]) - 1) < mpmath.mpf(10) ** -38
            assert abs(exact_head(n, k, p) / mpmath.fsum(terms[: k + 1]) - 1) < mpmath.mpf(10) ** -38


def test_exact_quantile_inverts_the_distribution_function():
    for p in (1e-12, 0.3, 0.5, 0.75, 1 - 2.0**-50):
        with mpmath.workdps(50):
            assert abs(mpmath.ncdf(exact_quantile(p)) / mpmath.mpf(p) - 1) < mpmath.mpf(10) ** -45


def test_no_lower_bound_is_above_the_exact_one_nor_far_below():
    generator = np.random.default_rng(0)
    checked = 0
    for n in TRIALS:
        for k in some_counts(n, generator):
            for alpha in ALPHAS:
                bound = float(clopper_pearson_lower(k, n, alpha))
                assert bound > 0 or k == 0
                if k > 0:
                    assert exact_tail(n, k, bound) <= mpmath.mpf(alpha), (k, n, alpha)
                    assert exact_tail(n, k, bound * (1 + 1e-9) if bound < 0.5 else 1 - (1 - bound) * (1 - 1e-6)) > alpha
                checked += 1
    assert checked > 800


def test_no_upper_bound_is_below_the_exact_one_nor_far_above():
    generator = np.random.default_rng(1)
    checked = 0
    for n in TRIALS:
        for k in some_counts(n, generator):
            for alpha in ALPHAS:
                bound = float(clopper_pearson_upper(k, n, alpha))
                assert bound < 1 or k == n
                if k < n:
                    assert exact_head(n, k, bound) <= mpmath.mpf(alpha), (k, n, alpha)
                    assert exact_head(n, k, bound - 1e-6 * min(bound, 1 - bound) - 2e-15) > alpha, (k, n, alpha)
                checked += 1
    assert checked > 800


@pytest.mark.parametrize("n", [1, 2, 10, 1000, 100_000, 10**8])
def test_unanimous_draws_have_bounds_in_closed_form(n):
    """k = 0 and k = n: Beta⁻¹(α; n, 1) = α^(1/n)."""
    for alpha in ALPHAS:
        assert float(clopper_pearson_lower(0, n, alpha)) == 0.0
        assert float(clopper_pearson_upper(n, n, alpha)) == 1.0
        lower, upper = float(clopper_pearson_lower(n, n, alpha)), float(clopper_pearson_upper(0, n, alpha))
        with mpmath.workdps(50):
            exact = mpmath.mpf(alpha) ** (mpmath.mpf(1) / n)
            assert exact * (1 - mpmath.mpf(10) ** -11) < lower <= exact < 1
            assert 1 - exact <= upper < (1 - exact) * (1 + mpmath.mpf(10) ** -6) + mpmath.mpf(10) ** -15


def test_no_radius_is_above_the_exact_one():
    generator = np.random.default_rng(1)
    near_half, near_one = 0.5 + 2.0 ** -np.arange(2, 53), 1 - 2.0 ** -np.arange(2, 53)
    for p in np.concatenate([[0.5], near_half, near_one, generator.uniform(0.5, 1, 1000)]):
        exact = exact_quantile(float(p))
        for sigma in SIGMAS:
            radius = float(certified_radius(p, sigma))
            with mpmath.workdps(50):
                assert radius <= mpmath.mpf(sigma) * exact
                assert p == 0.5 or radius * (1 + mpmath.mpf(10) ** -14) > mpmath.mpf(sigma) * exact


def test_no_two_sided_radius_is_above_the_exact_one():
    """Also where the two quantiles nearly cancel."""
    generator = np.random.default_rng(2)
    pairs = [sorted(generator.uniform(0, 1, 2)) for _ in range(300)]
    pairs += [(p, p * (1 + 10.0**-digits)) for p in (1e-6, 0.1, 0.3, 0.49999, 0.5, 0.8) for digits in range(1, 16)]
    pairs += [(tiny, 1 - tiny) for tiny in 2.0 ** -np.arange(2, 45)] + [(p, p) for p in (1e-9, 0.25, 0.5, 0.75)]
    for p_upper, p_lower in pairs:
        with mpmath.workdps(50):
            quantiles = exact_quantile(float(p_lower)), exact_quantile(float(p_upper))
            for sigma in SIGMAS:
                radius = float(two_sided_radius(p_lower, p_upper, sigma))
                exact = mpmath.mpf(sigma) / 2 * (quantiles[0] - quantiles[1])
                slack = mpmath.mpf(sigma) * mpmath.mpf(10) ** -14 * (abs(quantiles[0]) + abs(quantiles[1]))
                assert max(exact - slack, 0) <= radius <= max(exact, 0), (p_lower, p_upper, sigma)


def test_no_two_sided_bound_is_on_the_wrong_side_of_the_exact_one():
    generator = np.random.default_rng(3)
    for n in (1, 2, 10, 100, 1000, 100_000):
        for candidate in some_counts(n, generator):
            for runner_up in some_counts(n - candidate, generator)[:6]:
                for alpha in (1e-9, 0.001, 0.05):
                    p_lower, p_upper = (float(p) for p in simultaneous_bounds(candidate, runner_up, n, alpha))
                    with mpmath.workdps(50):
                        half, rest = mpmath.mpf(alpha) / 2, 1 - mpmath.mpf(p_lower)
                        assert candidate == 0 or exact_tail(n, candidate, p_lower) <= half
                        assert p_upper >= rest or runner_up == n or exact_head(n, runner_up, p_upper) <= half
                        assert p_upper <= rest + mpmath.mpf(2) ** -52


def test_from_counts_to_print_no_radius_exceeds_what_the_counts_prove():
    """P[Binomial(n, Φ(R/σ)) ≥ k] ≤ α for the radius as it is printed, for every σ, in six places and in full."""
    generator = np.random.default_rng(4)
    checked = 0
    for n in (100, 1000, 100_000):
        for k in [k for k in some_counts(n, generator) if k > n / 2]:
            for alpha in (1e-9, 0.001, 0.05):
                p_lower = float(clopper_pearson_lower(k, n, alpha))
                if p_lower < 0.5:
                    continue
                for sigma in SIGMAS:
                    radius = float(certified_radius(p_lower, sigma))
                    for printed in (round_down(radius, 6), full_precision(radius)):
                        with mpmath.workdps(50):
                            p = mpmath.ncdf(mpmath.mpf(str(Decimal(printed))) / mpmath.mpf(sigma))
                            assert exact_tail(n, k, p) <= mpmath.mpf(alpha), (k, n, alpha, sigma, printed)
                        checked += 1
    assert checked > 300
