"""Two runs image by image: exact tests, intervals that cover, a band that holds the whole difference curve."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from rrcm_dist.reporting.measures.pairing import (
    SEED,
    Pairs,
    band_half_width,
    difference_curve,
    mcnemar,
    newcombe_interval,
    pair,
    paired_accuracy,
    paired_radius,
)
from rrcm_dist.reporting.reading.logs import read_log


def made_up_pairs(images, seed, gap=0.1):
    """Radii of two runs that find the same images hard; some incorrect (-1), some tied at the largest radius."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0.3, 0.6, images)
    one, other = ease + gap + rng.normal(0, 0.2, images), ease + rng.normal(0, 0.2, images)
    return Pairs(*(np.where(radius < 0, -1.0, np.minimum(radius, 0.95)) for radius in (one, other)))


def test_mcnemars_p_value_is_the_exact_binomial_one():
    for one in range(14):
        for other in range(14):
            expected = stats.binomtest(one, one + other).pvalue if one + other else 1.0
            assert mcnemar(one, other) == pytest.approx(expected, rel=1e-12)


def test_the_interval_of_a_paired_difference_covers_it_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    cells = rng.multinomial(300, [0.4, 0.12, 0.05, 0.43], size=3000)
    intervals = [newcombe_interval(int(a), int(b), int(c), 300) for a, b, c, _ in cells]
    covered = np.mean([i.low <= 0.07 <= i.high for i in intervals])
    assert 0.935 < covered < 0.97


def test_pairing_narrows_the_interval_and_swapping_turns_it_round():
    paired = newcombe_interval(200, 20, 10, 300)
    apart = newcombe_interval(200 - 48, 20 + 48, 10 + 48, 300)
    swapped = newcombe_interval(200, 10, 20, 300)
    assert paired.value == apart.value == pytest.approx(1 / 30)
    assert paired.high - paired.low < 0.6 * (apart.high - apart.low)
    assert (swapped.low, swapped.high) == pytest.approx((-paired.high, -paired.low))


@pytest.mark.parametrize("cells", [(0, 0, 0), (10, 0, 0), (0, 10, 0), (0, 0, 10)])
def test_the_interval_is_there_for_cells_that_are_empty(cells):
    interval = newcombe_interval(*cells, trials=10)
    assert -1 <= interval.low <= interval.value <= interval.high <= 1
    assert interval.low < interval.high


def test_the_curve_is_the_paired_difference_at_every_radius():
    pairs = made_up_pairs(200, 3)
    radii = np.array([0.0, 0.1, 0.5, 0.95, 0.96])
    expected = [paired_accuracy(pairs, float(r)).difference.value for r in radii]
    assert difference_curve(pairs, radii) == pytest.approx(expected)


def test_the_band_is_the_bootstrap_over_every_radius_written_out():
    pairs, replicates = made_up_pairs(40, 4), 200
    radii = np.unique(np.maximum(np.concatenate([pairs.one, pairs.other]), 0))
    gaps = (pairs.one[:, None] >= radii).astype(float) - (pairs.other[:, None] >= radii)
    weights = np.random.Generator(np.random.Philox(key=SEED)).standard_normal((replicates, 40))
    largest = np.abs(weights @ (gaps - gaps.mean(axis=0))).max(axis=1) / 40
    expected = np.quantile(largest, 0.95, method="higher")
    assert band_half_width(pairs, replicates=replicates) == pytest.approx(expected)


def test_the_band_holds_the_whole_difference_curve():
    images, simulations, grid = 150, 400, np.linspace(0, 0.96, 97)
    truth = difference_curve(made_up_pairs(400_000, 99), grid)
    missed = 0
    for seed in range(simulations):
        pairs = made_up_pairs(images, seed)
        missed += bool(np.abs(difference_curve(pairs, grid) - truth).max() > band_half_width(pairs, replicates=200))
    assert stats.binomtest(missed, simulations, 0.06, alternative="greater").pvalue > 1e-3


def test_a_run_compared_with_itself_differs_nowhere():
    pairs = made_up_pairs(30, 5)
    same = Pairs(pairs.one, pairs.one)
    assert band_half_width(same) == pytest.approx(0, abs=1e-12)
    assert paired_radius(same).value == 0
    assert band_half_width(Pairs(np.full(3, -1.0), np.full(3, -1.0))) == 0


def test_runs_are_paired_on_the_images_that_they_share(write_log):
    (one,) = read_log(write_log("sigma_0.25.tsv"))
    (other,) = read_log(write_log("b/sigma_0.25.tsv", [(20, 7, 7, 0.4, 1), (40, 4, 4, 0.1, 1), (50, 1, 1, 0.1, 1)]))
    pairs = pair(one, other)
    assert pairs is not None
    assert (pairs.one.tolist(), pairs.other.tolist()) == ([-1.0, 0.25], [0.4, 0.1])
    assert paired_radius(pairs).value == pytest.approx((0 - 0.4 + 0.25 - 0.1) / 2)


def test_images_of_other_labels_are_other_images_and_one_alone_is_too_few(write_log):
    (one,) = read_log(write_log("sigma_0.25.tsv"))
    assert pair(one, replace(one, label=one.label + 1)) is None
    (single,) = read_log(write_log("b/sigma_0.25.tsv", [(20, 7, 7, 0.4, 1)]))
    assert pair(one, single) is None
