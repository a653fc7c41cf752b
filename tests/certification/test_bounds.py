"""Clopper–Pearson and the radius: the reference's values, coverage by simulation, what cannot be."""

import json
import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from rrcm_dist.certification.statistics.bounds import (
    certified_radius,
    check_radii,
    clopper_pearson_lower,
    clopper_pearson_upper,
    full_precision,
    largest_radius,
    round_down,
    round_up,
)
from rrcm_dist.errors import InvalidInput

REFERENCE = json.loads((Path(__file__).parent / "clopper_pearson_reference.json").read_text())


def test_bounds_and_radii_are_those_of_the_reference():
    assert len(REFERENCE) == 94
    for row in REFERENCE:
        bound = float(clopper_pearson_lower(row["successes"], row["n"], row["alpha"]))
        assert bound == pytest.approx(row["p_lower"], rel=1e-9, abs=0)
        if row["radius_sigma_1"] is None:
            assert bound < 0.5
        else:
            assert float(certified_radius(bound, 1.0)) == pytest.approx(row["radius_sigma_1"], rel=1e-9, abs=0)


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


def test_the_upper_bound_covers_the_truth_as_often_as_promised():
    generator = np.random.default_rng(3)
    trials, simulations = 1000, 200_000
    for alpha in (0.001, 0.05):
        for p in (0.001, 0.01, 0.1, 0.25, 0.5, 0.75):
            bounds = clopper_pearson_upper(generator.binomial(trials, p, simulations), trials, alpha)
            failures = int((bounds < p).sum())
            assert binomtest(failures, simulations, alpha, alternative="greater").pvalue > 1e-4, (alpha, p, failures)


def test_the_exact_chance_of_failing_is_at_most_alpha_and_close_to_it():
    counts = np.arange(1001)
    bounds = clopper_pearson_lower(counts, 1000, 0.001)
    chances = [binom.pmf(counts[bounds > p], 1000, p).sum() for p in np.linspace(0.4, 0.99, 400)]
    assert max(chances) <= 0.001
    assert np.mean(chances) > 0.0005


def test_printed_numbers_are_never_on_the_wrong_side_of_the_value():
    for value in [0.25, 0.1, 0.7499999999, 3.811456563389914, 1e-9, 0.9995, 2.675]:
        for decimals in (0, 1, 3, 6):
            text = round_down(value, decimals)
            assert Decimal(text) <= Decimal(value)
            assert Decimal(value) - Decimal(text) < Decimal(1).scaleb(-decimals)
            above = round_up(value, decimals)
            assert Decimal(above) >= Decimal(value)
            assert Decimal(above) - Decimal(value) < Decimal(1).scaleb(-decimals)
        assert float(full_precision(value)) == value
    assert round_down(0.7499999999, 3) == "0.749"


def test_the_largest_radius_is_that_of_unanimous_draws():
    assert largest_radius(100_000, 0.001, 0.5) == pytest.approx(0.5 * 3.8114565633899145, rel=1e-9)


@pytest.mark.parametrize(("successes", "trials", "alpha"), [
    (-1, 10, 0.1), (11, 10, 0.1), (0, 0, 0.1), (1, 10, 0.0), (1, 10, 1.0), (1, 10, -0.1), (1, 10, math.nan),
    (0.5, 10, 0.1),
])  # fmt: skip
def test_impossible_counts_and_confidences_are_refused(successes, trials, alpha):
    for bound in (clopper_pearson_lower, clopper_pearson_upper):
        with pytest.raises(InvalidInput):
            bound(successes, trials, alpha)


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
