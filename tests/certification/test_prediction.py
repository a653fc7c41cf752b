"""Abstaining prediction: the exact test, its promise by simulation, and what becomes of counts."""

from fractions import Fraction
from math import comb

import mpmath
import numpy as np
import pytest
from scipy.stats import binomtest
from test_exactness import exact_tail

from rrcm_dist.certification.statistics.certificates import ImageCounts
from rrcm_dist.certification.statistics.prediction import equality_p_value, predict_counts
from rrcm_dist.errors import InvalidInput


def counted(estimation, label=1):
    return ImageCounts(7, "key7", label, 0.5, np.array([10] + [0] * (len(estimation) - 1)), np.array(estimation), 0.25)


def test_p_values_are_those_of_the_binomial_test():
    for more, fewer in [(1, 0), (5, 5), (9, 1), (60, 40), (990, 2), (500, 500), (99_000, 900)]:
        expected = binomtest(more, more + fewer, 0.5).pvalue
        assert float(equality_p_value(more, fewer)) == pytest.approx(expected, rel=1e-6, abs=1e-300)


def test_no_p_value_is_below_the_exact_one_nor_far_above():
    for n in range(1, 130):
        tail = 0
        for more in range(n, n // 2, -1):
            tail += comb(n, more)
            exact = min(Fraction(2 * tail, 2**n), 1)
            assert exact <= Fraction(float(equality_p_value(more, n - more))) < exact * (1 + Fraction(1, 10**8))
    for n in (1000, 99_999, 10**6, 10**8):
        for deviation in (0.1, 1.0, 3.3, 6.0, 20.0):
            more = int(n / 2 + deviation * n**0.5 / 2) + 1
            p_value = float(equality_p_value(more, n - more))
            with mpmath.workdps(50):
                exact = min(2 * exact_tail(n, more, 0.5), mpmath.mpf(1))
                assert exact <= p_value < exact * (1 + mpmath.mpf(10) ** -8)


def test_a_p_value_too_small_for_a_float_is_not_zero():
    assert 0 < float(equality_p_value(10**6, 0)) < 1e-300


@pytest.mark.parametrize(
    "probabilities", [[0.49, 0.51], [0.34, 0.33, 0.33], [0.06] + [0.94 / 17] * 17, [0.2, 0.5, 0.3]]
)
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_another_class_than_the_most_probable_is_predicted_at_most_as_often_as_alpha(probabilities, alpha):
    drawn = np.random.default_rng(0).multinomial(100, probabilities, 100_000)
    ranked = np.sort(drawn, axis=1)
    predicted = equality_p_value(ranked[:, -1], ranked[:, -2]) <= alpha
    wrong = int((predicted & (drawn.argmax(axis=1) != np.argmax(probabilities))).sum())
    assert binomtest(wrong, 100_000, alpha, alternative="greater").pvalue > 1e-4, wrong


def test_alpha_is_nearly_spent_where_two_classes_are_nearly_equal():
    drawn = np.random.default_rng(1).multinomial(1000, [0.4999, 0.5001], 100_000)
    ranked = np.sort(drawn, axis=1)
    wrong = (equality_p_value(ranked[:, -1], ranked[:, -2]) <= 0.05) & (drawn[:, 0] > drawn[:, 1])
    assert 0.02 < wrong.mean() < 0.025


def test_the_most_frequent_class_is_predicted_or_none():
    clear, close, tied = predict_counts([counted([100, 880, 20]), counted([480, 500, 20]), counted([10, 5, 10])], 0.001)
    assert (clear.prediction, clear.correct, clear.top_draws, clear.second, clear.second_draws) == (
        1,
        True,
        880,
        0,
        100,
    )
    assert (close.prediction, close.abstains, close.correct, close.top) == (-1, True, False, 1)
    assert (tied.prediction, tied.top, tied.second, tied.p_value, tied.n) == (-1, 0, 2, 1.0, 25)
    (wrong,) = predict_counts([counted([880, 100, 20])], 0.001)
    assert (wrong.prediction, wrong.abstains, wrong.correct) == (0, False, False)


def test_selection_draws_never_enter_a_prediction():
    (prediction,) = predict_counts([counted([0, 20, 0])], 0.05)
    assert (prediction.prediction, prediction.n) == (1, 20)


def test_what_cannot_be_is_refused():
    with pytest.raises(InvalidInput, match="alpha"):
        predict_counts([counted([1, 2])], 1.0)
    with pytest.raises(InvalidInput, match="two classes"):
        predict_counts([counted([3])], 0.05)
    assert predict_counts([], 0.05) == []
