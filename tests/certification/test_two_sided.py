"""Two-sided certificates: both sides at once with confidence 1 - α, from counts to a radius."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from rrcm_dist.certification.blocks import Block, BlockCounts, Stage
from rrcm_dist.certification.ledger.file import RunIdentity
from rrcm_dist.certification.ledger.reader import LedgerReader
from rrcm_dist.certification.ledger.writer import Ledger
from rrcm_dist.certification.statistics.bounds import (
    certified_radius,
    clopper_pearson_lower,
    clopper_pearson_upper,
)
from rrcm_dist.certification.statistics.certificates import ImageCounts, certify_counts
from rrcm_dist.certification.statistics.two_sided import most_frequent_other, simultaneous_bounds, two_sided_radius
from rrcm_dist.errors import InvalidInput

SIMULATIONS = 100_000


def counted(selection, estimation, label=1, sigma=0.5):
    return ImageCounts(7, "key7", label, sigma, np.array(selection), np.array(estimation), 0.25)


def failures(probabilities, trials, alpha, seed):
    """How often either side is wrong, and how often the radius is too large; the candidate is class 0."""
    drawn = np.random.default_rng(seed).multinomial(trials, probabilities, SIMULATIONS)
    p_lower, p_upper = simultaneous_bounds(drawn[:, 0], drawn[:, 1:].max(axis=1), trials, alpha)
    best, other = probabilities[0], max(probabilities[1:])
    true_radius = 0.5 / 2 * (norm.ppf(best) - norm.ppf(other))
    certified = p_lower > p_upper
    too_large = certified & (two_sided_radius(p_lower, p_upper, 0.5) > max(true_radius, 0.0) + 1e-12)
    return int(((p_lower > best) | (p_upper < other)).sum()), int(too_large.sum())


@pytest.mark.parametrize("probabilities", [
    [0.5, 0.5], [0.9, 0.1], [0.4, 0.35, 0.25], [0.6, 0.1, 0.1, 0.1, 0.1], [0.05] * 20, [0.3, 0.02] + [0.04] * 17,
    [0.98, 0.01, 0.01], [0.2, 0.7, 0.1],
])  # fmt: skip
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_both_sides_together_are_wrong_at_most_as_often_as_alpha(probabilities, alpha):
    wrong, too_large = failures(probabilities, 300, alpha, seed=len(probabilities))
    assert too_large <= wrong
    assert binomtest(wrong, SIMULATIONS, alpha, alternative="greater").pvalue > 1e-4, wrong


def test_alpha_is_spent_and_without_being_split_it_would_be_overspent():
    """With one other class of three that matters, both halves are spent; twice as much fails the test above."""
    probabilities = [0.5, 0.4, 0.1]
    spent, _ = failures(probabilities, 1000, 0.05, seed=0)
    overspent, _ = failures(probabilities, 1000, 0.1, seed=0)
    assert spent > 0.03 * SIMULATIONS
    assert binomtest(overspent, SIMULATIONS, 0.05, alternative="greater").pvalue < 1e-4


def test_the_runner_up_is_bounded_with_half_of_alpha_however_many_classes_there_are():
    p_lower, p_upper = simultaneous_bounds(900, 20, 1000, 0.001)
    assert p_lower == clopper_pearson_lower(900, 1000, 0.0005)
    assert p_upper == clopper_pearson_upper(20, 1000, 0.0005)


def test_no_other_class_is_bounded_above_what_the_candidate_leaves():
    p_lower, p_upper = simultaneous_bounds(600, 400, 1000, 0.001)
    assert p_upper == pytest.approx(1 - p_lower, abs=1e-15)
    assert two_sided_radius(p_lower, p_upper, 0.5) == pytest.approx(float(certified_radius(p_lower, 0.5)), rel=1e-12)


def test_a_candidate_below_one_half_is_certified_where_the_others_are_rare():
    (certificate,) = certify_counts([counted([0, 9, 1], [2000, 4800, 1600, 1600])], 0.001, two_sided=True)
    assert certificate.p_lower < 0.5
    assert (certificate.prediction, certificate.correct) == (1, True)
    assert (certificate.runner_up, certificate.runner_up_successes) == (0, 2000)
    expected = 0.25 * (norm.ppf(certificate.p_lower) - norm.ppf(certificate.p_upper))
    assert certificate.radius == pytest.approx(expected, rel=1e-12)
    assert certificate.radius > 0.15
    (one_sided,) = certify_counts([counted([0, 9, 1], [2000, 4800, 1600, 1600])], 0.001)
    assert (one_sided.prediction, one_sided.radius, one_sided.p_upper) == (-1, 0.0, None)


def test_where_the_bounds_overlap_the_image_abstains():
    (certificate,) = certify_counts([counted([9, 1], [510, 490])], 0.001, two_sided=True)
    assert certificate.p_lower <= certificate.p_upper
    assert (certificate.prediction, certificate.radius) == (-1, 0.0)


def test_selection_draws_choose_the_candidate_and_enter_neither_bound():
    estimation = [100, 850, 50]
    for two_sided in (False, True):
        few, many = certify_counts(
            [counted([1, 9, 0], estimation), counted([400, 500, 0], estimation)], 0.001, two_sided
        )
        assert (few.p_lower, few.p_upper, few.radius) == (many.p_lower, many.p_upper, many.radius)
        assert (few.successes, few.n, few.n0, many.n0) == (850, 1000, 10, 900)
        (other,) = certify_counts([counted([9, 1, 0], estimation)], 0.001, two_sided)
        assert (other.candidate, other.successes, other.prediction) == (0, 100, -1)
    assert other.runner_up == 1


def test_draws_that_decided_when_to_stop_have_no_two_sided_certificate():
    image = replace(counted([9, 1], [90, 10]), looks=np.array([[50, 90], [50, 100]]))
    assert len(certify_counts([image], 0.001)) == 1
    with pytest.raises(InvalidInput, match="mode adaptive"):
        certify_counts([image], 0.001, two_sided=True)


def test_a_ledger_is_read_two_sided(tmp_path):
    identity = RunIdentity(
        seed=0,
        n0=10,
        alpha=0.001,
        block=1000,
        dataset="d" * 64,
        classes=4,
        image_size=32,
        noise="cpu",
        precision="fp32",
    )
    selection, estimation = np.array([0, 9, 1, 0]), np.array([200, 480, 160, 160])
    with Ledger(tmp_path / "l.sqlite", identity, 2000, "test") as ledger:
        ledger.set_classifier(0.5, "w" * 64, "somewhere")
        ledger.add_images([(7, "key7", 1)])
        blocks = [(Stage.SELECTION, 0, selection), (Stage.ESTIMATION, 0, estimation), (Stage.ESTIMATION, 1, estimation)]
        for stage, number, counts in blocks:
            block = Block(7, "key7", 0.5, stage, number, int(counts.sum()))
            ledger.add([BlockCounts(block, counts, "here", 0.25)])
    with LedgerReader(tmp_path / "l.sqlite") as reader:
        (certificate,) = reader.certificates(0.5, alpha=0.01, two_sided=True)
        (one_sided,) = reader.certificates(0.5)
    p_lower, p_upper = simultaneous_bounds(960, 400, 2000, 0.01)
    assert (certificate.p_lower, certificate.p_upper, certificate.n) == (p_lower, p_upper, 2000)
    assert (certificate.radius, certificate.prediction) == (two_sided_radius(p_lower, p_upper, 0.5), 1)
    assert one_sided.prediction == -1


def test_the_most_frequent_other_is_the_lowest_number_among_equals():
    assert most_frequent_other(np.array([5, 9, 5]), 1) == 0
    assert most_frequent_other(np.array([0, 9, 0]), 1) == 0
    assert most_frequent_other(np.array([9, 0, 0]), 0) == 1
    with pytest.raises(InvalidInput, match="at least two classes"):
        most_frequent_other(np.array([9]), 0)


def test_counts_and_confidences_that_cannot_be_are_refused():
    with pytest.raises(InvalidInput, match="more draws together"):
        simultaneous_bounds(600, 500, 1000, 0.001)
    for alpha in (0.0, 1.0, 1.5):
        with pytest.raises(InvalidInput, match="alpha"):
            simultaneous_bounds(600, 400, 1000, alpha)
    with pytest.raises(InvalidInput, match="sigma"):
        two_sided_radius(0.9, 0.1, 0.0)
