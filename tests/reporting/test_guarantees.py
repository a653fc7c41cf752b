"""Lower bounds of the true certified accuracy hold although some certificates are wrong."""

import math

import numpy as np
import pytest
from scipy import stats

from rrcm_dist.certification.statistics.bounds import clopper_pearson_lower
from rrcm_dist.reporting.certificates import Source
from rrcm_dist.reporting.measures.guarantees import guarantee, most_wrong, population_lower
from rrcm_dist.reporting.report import build_report

SIMULATIONS = 20_000


def often_enough(held):
    """Whether so many of the simulations can have held if each does with 95 %."""
    return stats.binomtest(int(held.sum()), len(held), 0.95, alternative="less").pvalue > 1e-4


@pytest.mark.parametrize("images", [1, 10, 500, 10_000])
@pytest.mark.parametrize("alpha", [1e-6, 0.001, 0.01, 0.3])
def test_the_most_wrong_certificates_are_the_binomial_quantile(images, alpha):
    assert most_wrong(images, alpha) == stats.binom.ppf(0.95, images, alpha)


def cohen_lower(share, images, alpha, rho):
    """Cohen et al. 2019, appendix on estimating the certified test-set accuracy (Bernstein's inequality)."""
    slack = math.sqrt(2 * alpha * (1 - alpha) * math.log(1 / rho) / images) + math.log(1 / rho) / (3 * images)
    return (share - alpha - slack) / (1 - alpha)


@pytest.mark.parametrize(("images", "short"), [(100, 0.0), (500, 0.0), (2000, 0.0003), (10_000, 0.0007)])
def test_holding_at_all_radii_costs_next_to_nothing_beside_bernsteins_bound_at_one(images, short):
    counts = np.arange(images + 1)
    ours = np.array(list(guarantee(counts, tuple(counts.tolist()), images, 0.001).on_images.values()))
    assert (ours >= cohen_lower(counts / images, images, 0.001, 0.05) - short - 1e-12).all()


def test_the_bound_on_the_images_holds_at_all_radii_at_once():
    rng = np.random.default_rng(1)
    images, alpha, grid = 80, 0.02, np.linspace(0, 1, 41)
    true = rng.random(images)
    # The worst that α allows: each certificate is wrong with probability α, and then reaches everywhere.
    claimed = np.where(rng.random((SIMULATIONS, images)) < alpha, 1.0, true)
    counts = (claimed[:, :, None] >= grid).sum(axis=1)
    bound = np.maximum(counts - most_wrong(images, alpha), 0) / images
    truth = (true[:, None] >= grid).mean(axis=0)
    held = (bound <= truth + 1e-12).all(axis=1)
    assert often_enough(held)
    assert not often_enough((counts / images <= truth + 1e-12).all(axis=1))


@pytest.mark.parametrize("theta", [0.05, 0.4, 0.9])
def test_the_bound_of_the_population_holds_and_without_alpha_it_would_not(theta):
    rng = np.random.default_rng(2)
    images, alpha = 2000, 0.05
    counted = theta + (1 - theta) * alpha
    counts = rng.binomial(images, counted, size=SIMULATIONS)
    assert often_enough(population_lower(counts, images, alpha) <= theta)
    if theta < 0.9:
        assert not often_enough(clopper_pearson_lower(counts, images, 0.05) <= theta)


def test_a_guarantee_needs_a_known_alpha(write_log):
    log = write_log("sigma_0.25.tsv")
    unknown, known = build_report([Source(log)], [0.0]), build_report([Source(log, alpha=0.001)], [0.0])
    assert unknown.document()["rows"][0]["guaranteed"] is None
    assert "guaranteed, these images" not in unknown.markdown()
    assert known.document()["rows"][0]["guaranteed"]["wrong_certificates_at_most"] == 0
    assert "guaranteed, these images" in known.markdown()
    assert any("α = 0.001" in note and "at most 0 of 4" in note for note in known.notes)


def test_printed_bounds_are_rounded_down(write_log):
    rows = [(image, 1, 1, 0.5, int(image < 2) or 1) for image in range(3)]
    rows[2] = (2, 1, 0, 0.5, 0)
    report = build_report([Source(write_log("sigma_0.25.tsv", rows), alpha=0.001)], [0.0])
    (line,) = (line for line in report.markdown().splitlines() if "guaranteed, these images" in line)
    assert "66.6" in line
