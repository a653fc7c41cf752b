"""The simultaneous band: its level is exact, and it holds whole curves, with ties and jumps."""

import numpy as np
import pytest
from scipy import stats

from rrcm_dist.reporting.measures.bands import all_within, local_level, simultaneous_band
from rrcm_dist.reporting.measures.estimates import wilson_interval


@pytest.mark.parametrize("trials", [1, 3, 20, 120])
def test_the_recursion_agrees_with_sorted_uniform_draws(trials):
    level, simulations = 0.01, 40_000
    order = np.sort(np.random.default_rng(trials).random((simulations, trials)), axis=1)
    k = np.arange(1, trials + 1)
    low, high = stats.beta.ppf([[level / 2], [1 - level / 2]], k, trials - k + 1)
    share = np.mean(((order >= low) & (order <= high)).all(axis=1))
    exact = all_within(trials, level)
    assert abs(share - exact) < 4.5 * np.sqrt(exact * (1 - exact) / simulations)


@pytest.mark.parametrize("trials", [1, 2, 7, 50, 500, 1500])
def test_the_level_is_never_less_certain_than_asked_and_hardly_more(trials):
    assert 0.95 <= all_within(trials, local_level(trials)) <= 0.951


def misses(band, simulations=2000, trials=60):
    """How often a band misses the true curve of a distribution with two atoms and a continuous part somewhere."""
    rng = np.random.default_rng(7)
    grid = np.linspace(0, 1, 201)
    truth = np.where(grid <= 1.0, 0.2 + 0.5 * (1 - grid), 0.0)  # 0.3 at -1, 0.2 at 1, the rest even between 0 and 1
    kind = rng.random((simulations, trials))
    radii = np.where(kind < 0.3, -1.0, np.where(kind < 0.5, 1.0, rng.random((simulations, trials))))
    counts = (radii[:, :, None] >= grid).sum(axis=1, dtype=np.int64)
    low, high = band(counts, trials)
    return int(((low > truth) | (high < truth)).any(axis=1).sum()), simulations


def test_the_band_holds_the_whole_curve_of_a_distribution_with_atoms():
    missed, simulations = misses(simultaneous_band)
    assert stats.binomtest(missed, simulations, 0.05, alternative="greater").pvalue > 1e-4


def test_pointwise_intervals_do_not_hold_the_whole_curve():
    missed, simulations = misses(wilson_interval)
    assert missed / simulations > 0.25


def test_the_band_is_far_narrower_than_kolmogorovs_at_small_shares_and_a_fifth_wider_at_half():
    low, high = simultaneous_band([10, 250], 500)
    kolmogorov = 2 * stats.kstwo.ppf(0.95, 500)
    assert low[0] > 0.005
    assert high[0] - low[0] < 0.4 * kolmogorov
    assert kolmogorov < high[1] - low[1] < 1.21 * kolmogorov


def test_the_band_ends_at_0_and_1():
    low, high = simultaneous_band([0, 30], 30)
    assert (low[0], high[1]) == (0.0, 1.0)
    assert 0 < high[0] < low[1] < 1
