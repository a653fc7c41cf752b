"""When adaptive certification stops an image, and how its draws are cut into blocks."""

import numpy as np
import pytest
from scipy.special import ndtr

from rrcm_dist.certification.statistics.bounds import certified_radius, clopper_pearson_lower
from rrcm_dist.certification.statistics.confidence_sequence import lower_bound
from rrcm_dist.certification.statistics.stopping import AdaptiveRule, block_sizes

N, ALPHA = 100_000, 0.001
RADII = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]


def rule(sigma: float = 0.5, radii: list[float] | None = None, draws_per_radius: float = 75_000) -> AdaptiveRule:
    return AdaptiveRule.of(sigma, RADII if radii is None else radii, N, ALPHA, draws_per_radius)


def finished(one: AdaptiveRule, successes: int, trials: int) -> bool:
    return bool(one.finished(successes, trials, lower_bound(successes, trials, ALPHA)))


def test_an_image_stops_once_its_largest_radius_is_certified():
    one = rule()
    assert not finished(one, 5000, 5000)
    assert finished(one, 8000, 8000)
    assert one.reason(8000, float(lower_bound(8000, 8000, ALPHA))) == "decided"


def test_a_radius_once_certified_stays_so():
    one = rule(radii=[0.0])
    high = float(lower_bound(100, 100, ALPHA))
    assert lower_bound(600, 1200, ALPHA) < 0.5 < high
    assert one.finished(600, 1200, high)
    assert not one.finished(600, 1200, 0.45)


def test_an_image_between_two_radii_stops_early_and_one_at_a_radius_goes_on():
    one = rule(radii=[0.5, 1.0])  # agreement of 84.1 % and 97.7 %
    assert finished(one, 9300, 10_000)
    assert not finished(one, 8500, 10_000)
    assert one.reason(10_000, float(lower_bound(9300, 10_000, ALPHA))) == "futile"


def test_a_hopeless_image_stops_at_the_first_looks():
    assert finished(rule(), 20, 100)
    assert finished(rule(), 100, 400)


def test_nothing_goes_on_beyond_n():
    one = rule(radii=[0.0], draws_per_radius=np.inf)
    assert finished(one, N // 2, N)
    assert one.reason(N, 0.49) == "all n draws"


def test_a_higher_price_never_stops_sooner():
    trials = 3000
    successes = np.arange(trials + 1)
    bounds = lower_bound(successes, trials, ALPHA)
    stops = [rule(draws_per_radius=price).finished(successes, trials, bounds) for price in (1e4, 7.5e4, 1e6)]
    assert (stops[0] >= stops[1]).all()
    assert (stops[1] >= stops[2]).all()
    assert stops[0].sum() > stops[1].sum() > stops[2].sum() > 0


def test_without_a_price_only_what_cannot_be_certified_any_more_is_given_up():
    one = rule(radii=[0.0], draws_per_radius=np.inf)
    assert not finished(one, 1450, 3000)
    assert finished(one, 300, 3000)


def test_radii_out_of_reach_and_their_order_do_not_matter():
    trials = 4000
    successes = np.arange(trials + 1)
    bounds = lower_bound(successes, trials, ALPHA)
    plain = rule(radii=[0.0, 0.5, 1.0])
    other = rule(radii=[1.0, 7.0, 0.0, 0.5, 0.5])
    assert (plain.finished(successes, trials, bounds) == other.finished(successes, trials, bounds)).all()
    assert finished(rule(radii=[7.0]), 100, 100)


def test_a_level_is_the_least_bound_that_certifies_its_radius():
    for sigma in (0.12, 0.25, 0.5, 1.0):
        radii = np.linspace(0, 3 * sigma, 40)
        levels = rule(sigma, radii.tolist()).levels
        assert (certified_radius(levels, sigma) >= radii).all()
        below = levels - 1e-13 * levels * (1 - levels) - 3e-16
        assert levels[0] == 0.5
        assert (certified_radius(below[1:], sigma) < radii[1:]).all()


def test_images_are_decided_alike_one_by_one_and_together():
    generator = np.random.default_rng(0)
    trials = generator.integers(1, N + 1, 500)
    successes = generator.binomial(trials, generator.uniform(0.3, 1, 500))
    bounds = lower_bound(successes, trials, ALPHA)
    one = rule()
    together = one.finished(successes, trials, bounds)
    assert 0 < together.sum() < 500
    alone = [bool(one.finished(*each)) for each in zip(successes, trials, bounds, strict=True)]
    assert together.tolist() == alone


def test_most_draws_are_saved_and_few_radii_lost():
    generator = np.random.default_rng(1)
    p = ndtr(np.maximum(generator.uniform(-0.5, 3.5, 10_000), 0.0))  # an eighth at one half, as abstentions in logs are
    one = rule()
    successes, draws, lower = np.zeros(p.size, np.int64), np.zeros(p.size, np.int64), np.zeros(p.size)
    active, trials = np.arange(p.size), 0
    for size in block_sizes(N, 100, 0.15, 1000):
        trials += size
        draws[active] = trials
        successes[active] += generator.binomial(size, p[active])
        lower[active] = np.maximum(lower[active], lower_bound(successes[active], trials, ALPHA))
        active = active[~one.finished(successes[active], trials, lower[active])]
    fixed = clopper_pearson_lower(generator.binomial(N, p), N, ALPHA)
    lost = 100 * ((fixed[:, None] >= one.levels).mean(axis=0) - (lower[:, None] >= one.levels).mean(axis=0))
    assert draws.mean() < 7600
    assert lost.mean() < 0.8
    assert lost.max() < 2.5


@pytest.mark.parametrize("n", [1, 2, 9, 10, 11, 150, 100_000])
def test_every_number_of_draws_has_a_rule(n):
    one = AdaptiveRule.of(0.5, [0.0, 0.5], n, 0.05, 75_000)
    assert one.finished(n, n, float(lower_bound(n, n, 0.05)))


def test_blocks_grow_by_the_share_up_to_the_longest_and_sum_to_n():
    sizes = block_sizes(100_000, 100, 0.15, 1000)
    assert sizes[:6] == [100, 115, 132, 152, 175, 201]
    assert max(sizes) == 1000
    assert sum(sizes) == 100_000
    assert sizes[:-1] == sorted(sizes[:-1])
    assert len(sizes) == 111


@pytest.mark.parametrize(("n", "first", "growth", "block", "expected"), [
    (1000, 300, 0.0, 1000, [300, 300, 300, 100]),
    (1000, 100, 1.0, 250, [100, 200, 250, 250, 200]),
    (50, 100, 0.15, 1000, [50]),
    (100, 100, 0.15, 1000, [100]),
    (10, 400, 0.15, 4, [4, 4, 2]),
    (5, 1, 0.15, 1000, [1, 1, 1, 1, 1]),
])  # fmt: skip
def test_blocks_of_any_size_sum_to_n(n, first, growth, block, expected):
    assert block_sizes(n, first, growth, block) == expected


def test_a_larger_n_only_adds_to_the_blocks():
    small, large = block_sizes(20_000, 100, 0.15, 1000), block_sizes(100_000, 100, 0.15, 1000)
    assert large[: len(small) - 1] == small[:-1]
