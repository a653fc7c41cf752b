"""The noise of different blocks: distinct, uncorrelated, standard normal, in float32."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest, norm

from rrcm_dist.certification.blocks import Block, Stage
from rrcm_dist.certification.workers.counting import BlockNoise
from rrcm_dist.random_streams import Purpose, stream_key

CPU = torch.device("cpu")
NUMBERS = 3000
"""Drawn from each stream."""
NAMES = list(product(
    (0, 1), ("1", "11", "n01440764/10026", "n01440764/10027", "digits-00000000"), (0.25, 0.5, 1.0, 0.1),
    (Stage.SELECTION, Stage.ESTIMATION), (0, 1, 10, 11, 100),
))  # fmt: skip
"""400 streams (seed, image's key, σ, stage, block number), alike in all coordinates but one or two."""


def stream(seed, key, sigma, stage, number):
    return BlockNoise(CPU, seed, Block(0, key, sigma, stage, number, 1000))


@pytest.fixture(scope="module")
def drawn():
    """float64 (streams, numbers)."""
    return np.stack([stream(*name).draw(1, torch.Size([NUMBERS]))[0].double().numpy() for name in NAMES])


def cosines_of(streams):
    """Of all pairs of different streams, (pairs,). For independent normal numbers, the cosine of any two streams has
    cosine² ~ Beta(½, (numbers - 1)/2) exactly, and any two cosines are independent of each other."""
    unit = streams / np.linalg.norm(streams, axis=1, keepdims=True)
    return (unit @ unit.T)[np.triu_indices(len(unit), k=1)]


@pytest.fixture(scope="module")
def cosines(drawn):
    return cosines_of(drawn)


def suspicion(cosines, numbers):
    """Standard deviations by which the sum of squared cosines is off, and how many pairs were expected beyond the
    largest: the chance of any there is at most that number, and of none at most its inverse."""
    null = beta(0.5, (numbers - 1) / 2)
    deviation = ((cosines**2).sum() - len(cosines) * null.mean()) / (len(cosines) * null.var()) ** 0.5
    return abs(deviation), len(cosines) * null.sf((cosines**2).max())


def test_no_two_streams_are_correlated(cosines):
    assert len(cosines) == 79_800
    deviation, expected_beyond = suspicion(cosines, NUMBERS)
    assert deviation < 5
    assert 1e-5 < expected_beyond < 1e3


def test_correlations_are_distributed_as_those_of_independent_streams(cosines):
    assert kstest(cosines**2, beta(0.5, (NUMBERS - 1) / 2).cdf).pvalue > 1e-4


def test_little_that_streams_had_in_common_would_be_found(drawn):
    """One pair that is correlated by a fifth, or a hundredth that all streams share."""
    one_pair, all_pairs = drawn.copy(), 0.995 * drawn + 0.1 * drawn[0]
    one_pair[1] = 0.98 * one_pair[1] + 0.2 * one_pair[0]
    assert suspicion(cosines_of(one_pair), NUMBERS)[1] < 1e-5
    assert suspicion(cosines_of(all_pairs[1:]), NUMBERS)[0] > 5


def test_no_stream_is_another_one_shifted():
    """64-bit words of all streams differ: two that overlap anywhere would share some."""
    words = np.concatenate([stream(*name)._stream._numpy.bit_generator.random_raw(1000) for name in NAMES])
    assert len(np.unique(words)) == len(NAMES) * 1000


def test_a_million_blocks_have_streams_of_their_own():
    names = product(
        (0, 1), (f"images/{i:08d}" for i in range(500)), (0.25, 0.5), ("selection", "estimation"), range(250)
    )
    keys = {stream_key(Purpose.CERTIFICATION_NOISE, *name) for name in names}
    assert len(keys) == 10**6
    assert len({key & (2**63 - 1) for key in keys}) == 10**6, "what seeds the generator of a GPU"


def test_the_first_words_of_thirty_thousand_blocks_differ():
    blocks = product(range(2), (f"images/{i:08d}" for i in range(150)), (0.25, 0.5), Stage, range(25))
    first = [stream(*name)._stream._numpy.bit_generator.random_raw() for name in blocks]
    assert len(set(first)) == len(first) == 30_000


def test_all_streams_together_are_standard_normal(drawn):
    assert kstest(drawn.ravel(), norm.cdf).pvalue > 1e-4
    assert kstest((drawn.sum(axis=1) / NUMBERS**0.5), norm.cdf).pvalue > 1e-4, "means of streams"
    assert kstest(drawn[:, 0], norm.cdf).pvalue > 1e-4, "first numbers of streams"


def test_noise_has_the_resolution_of_float32():
    """Noise that had been drawn in half precision and cast would be representable there."""
    noise = stream(*NAMES[0]).draw(1, torch.Size([NUMBERS]))
    for half in (torch.bfloat16, torch.float16):
        assert (noise.to(half).float() == noise).double().mean() < 0.01
