"""Certified accuracy, ACR, abstention and their intervals against hand calculation and simulation."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from rrcm_dist.reporting.certificates import Certificates, Provenance
from rrcm_dist.reporting.measures.accuracy import (
    abstention_rate,
    average_certified_radius,
    best_of_sigma_curve,
    certified_accuracy,
    certified_accuracy_curve,
)
from rrcm_dist.reporting.measures.bands import simultaneous_band
from rrcm_dist.reporting.measures.effort import effort
from rrcm_dist.reporting.measures.estimates import mean, wilson_interval
from rrcm_dist.reporting.reading.logs import read_log


@pytest.fixture
def run(write_log):
    return read_log(write_log("sigma_0.5.tsv", times=["1", "2", "nan", "9"]))[0]


def certificates(radius, correct, sigma=0.5):
    n = len(radius)
    return Certificates(
        "x", sigma, np.arange(n), np.ones(n, int), np.where(correct, 1, 0), np.asarray(radius, float), np.ones(n),
        np.full(n, np.nan), np.full(n, np.nan), Provenance(Path("x"), "log", ""),
    )  # fmt: skip


def test_certified_accuracy_counts_correct_images_with_at_least_the_radius(run):
    values = [certified_accuracy(run, r).value for r in (0, 0.25, 0.2501, 0.5, 0.51)]
    assert values == [0.5, 0.5, 0.25, 0.25, 0.0]


def test_abstentions_and_wrong_classes_are_not_correct_at_radius_zero(run):
    assert certified_accuracy(run, 0.0).value == 0.5
    assert abstention_rate(run).value == 0.25


def test_average_certified_radius_is_the_mean_of_correct_times_radius(run):
    assert average_certified_radius(run).value == (0.5 + 0.25) / 4


def test_the_median_time_leaves_unknown_times_out(run):
    assert effort(run).median_seconds == 2.0


def test_the_curve_equals_certified_accuracy_at_every_radius(run):
    radii = np.array([0.0, 0.1, 0.25, 0.5, 0.7])
    curve = certified_accuracy_curve(run, radii)
    for k, radius in enumerate(radii):
        estimate = certified_accuracy(run, radius)
        low, high = simultaneous_band(round(estimate.value * run.images), run.images)
        assert curve[:, k] == pytest.approx([estimate.value, float(low), float(high)])


def test_best_of_sigma_is_the_upper_envelope_of_the_curves():
    low, high = certificates([0.2, 0.2], [1, 1], 0.25), certificates([0.9, 0.9], [1, 0], 0.5)
    assert best_of_sigma_curve([low, high], np.array([0.0, 0.2, 0.5, 1.0])).tolist() == [1.0, 1.0, 0.5, 0.0]


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (250, 500)])
def test_wilson_agrees_with_scipy(successes, trials):
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    low, high = wilson_interval(successes, trials)
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_covers_the_true_share_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    low, high = wilson_interval(rng.binomial(500, 0.6, size=4000), 500)
    assert 0.935 < np.mean((low <= 0.6) & (high >= 0.6)) < 0.965


def test_the_interval_of_a_mean_agrees_with_scipy():
    values = np.random.default_rng(0).gamma(1.0, size=50)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    estimate = mean(values)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))


def test_one_image_has_a_mean_but_no_interval():
    estimate = average_certified_radius(certificates([0.3], [1]))
    assert estimate.value == 0.3
    assert np.isnan(estimate.high)
