"""Coverage of both modes by simulation, at and around the probabilities of a grid of radii."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import binomtest

from rrcm_dist.certification.statistics.bounds import clopper_pearson_lower
from rrcm_dist.certification.statistics.confidence_sequence import lower_bound
from rrcm_dist.certification.statistics.stopping import AdaptiveRule, block_sizes

SIGMA, RADII = 0.5, np.arange(7) * 0.25
AT = ndtr(RADII / SIGMA)
PROBABILITIES = np.concatenate([AT - 0.1 * np.sqrt(AT * (1 - AT)) * (1 - AT), AT, AT + 0.002 * (1 - AT)])
TRIALS_EACH = 5000
N = 10_000
STRICT = 1e-5
"""A right bound fails one of the tests below with less than this chance for each probability."""

Bound = Callable[[np.ndarray, int, float], np.ndarray]


def running_bounds(p: np.ndarray, alpha: float, bound: Bound, rule: AdaptiveRule | None, seed: int) -> np.ndarray:
    """The largest bound over the looks at `block_sizes`, up to n draws or the rule's stop: one for each of `p`."""
    generator = np.random.default_rng(seed)
    successes, highest = np.zeros(p.size, np.int64), np.zeros(p.size)
    active, trials = np.arange(p.size), 0
    for size in block_sizes(N, 100, 0.15, 1000):
        trials += size
        successes[active] += generator.binomial(size, p[active])
        counts, place = np.unique(successes[active], return_inverse=True)
        highest[active] = np.maximum(highest[active], bound(counts, trials, alpha)[place])
        if rule is not None:
            active = active[~rule.finished(successes[active], trials, highest[active])]
    return highest


def failures_of(highest: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Of the simulations at each probability, how many bounds lie above it."""
    return (highest > p).reshape(TRIALS_EACH, -1).sum(axis=0)


def p_values(failures: np.ndarray, alpha: float) -> list[float]:
    """Of the hypothesis, for each probability and for all together, that a bound fails with chance α or less."""
    single = [binomtest(int(each), TRIALS_EACH, alpha, alternative="greater").pvalue for each in failures]
    together = binomtest(int(failures.sum()), TRIALS_EACH * failures.size, alpha, alternative="greater").pvalue
    return [*single, together]


@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_a_fixed_n_covers_the_truth(alpha):
    p = np.tile(PROBABILITIES, TRIALS_EACH)
    assert p.size >= 100_000
    successes = np.random.default_rng(0).binomial(N, p)
    failures = failures_of(clopper_pearson_lower(successes, N, alpha), p)
    assert min(p_values(failures, alpha)) > STRICT, failures
    assert failures.sum() > 0.5 * alpha * p.size


@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_the_running_bound_covers_the_truth_over_all_looks(alpha):
    p = np.tile(PROBABILITIES, TRIALS_EACH)
    failures = failures_of(running_bounds(p, alpha, lower_bound, None, seed=1), p)
    assert min(p_values(failures, alpha)) > STRICT, failures
    assert failures.sum() > 0.1 * alpha * p.size


@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_stopping_early_keeps_the_coverage(alpha):
    p = np.tile(PROBABILITIES, TRIALS_EACH)
    rule = AdaptiveRule.of(SIGMA, RADII, N, alpha, 75_000)
    failures = failures_of(running_bounds(p, alpha, lower_bound, rule, seed=2), p)
    assert min(p_values(failures, alpha)) > STRICT, failures
    assert failures.sum() > 0.05 * alpha * p.size


def test_looking_often_at_a_bound_for_a_fixed_n_is_caught():
    p = np.tile(PROBABILITIES, TRIALS_EACH)
    failures = failures_of(running_bounds(p, 0.05, clopper_pearson_lower, None, seed=3), p)
    assert min(p_values(failures, 0.05)) < 1e-100, failures
