"""The order of samples: a pure function of the recipe and the step, the same however many ranks read it."""

import time

import numpy as np
import pytest

from rrcm_dist.data.order import SampleOrder
from rrcm_dist.errors import InvalidInput

SHARDS = (40, 25, 1, 60, 0, 33, 41)


def order(batch: int = 24, streams: int = 12, seed: int = 3, window: int = 16) -> SampleOrder:
    return SampleOrder(SHARDS, batch, streams, seed, window)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6, 12])
def test_ranks_share_the_same_global_batches(world_size: int) -> None:
    for step in range(2 * order().steps_per_epoch + 1):
        shares = [order().rank_batch(step, rank, world_size) for rank in range(world_size)]
        assert len({len(share) for share in shares}) == 1
        np.testing.assert_array_equal(np.concatenate(shares), order().global_batch(step))


def test_a_step_can_be_read_without_the_steps_before_it() -> None:
    walked = order()
    batches = [walked.global_batch(step) for step in range(30)]
    for step in (29, 7, 0, 15):
        np.testing.assert_array_equal(order().global_batch(step), batches[step])


def test_an_epoch_holds_every_sample_at_most_once_and_all_but_less_than_a_batch() -> None:
    one = order()
    for epoch in range(3):
        steps = range(epoch * one.steps_per_epoch, (epoch + 1) * one.steps_per_epoch)
        ids = np.concatenate([one.global_batch(step) for step in steps])
        assert len(np.unique(ids)) == len(ids)
        assert ids.min() >= 0
        assert ids.max() < sum(SHARDS)
        assert sum(SHARDS) - len(ids) < one.batch


def test_every_sample_is_read_within_a_few_epochs() -> None:
    one = order()
    seen = np.concatenate([one.global_batch(step) for step in range(8 * one.steps_per_epoch)])
    assert len(np.unique(seen)) == sum(SHARDS)


def test_seeds_and_epochs_change_the_order() -> None:
    one = order()
    first = one.global_batch(0)
    assert not np.array_equal(first, one.global_batch(one.steps_per_epoch))
    assert not np.array_equal(first, order(seed=4).global_batch(0))


def test_a_stream_reads_few_shards_at_a_time() -> None:
    one = SampleOrder([100] * 64, batch=64, streams=8, seed=0, window=200)
    for stream in range(8):
        ids = [one.global_batch(step)[stream * 8 : stream * 8 + 8] for step in range(10)]
        assert len(np.unique(np.concatenate(ids) // 100)) <= 3


def test_dealing_an_epoch_of_imagenet_takes_a_fraction_of_a_second() -> None:
    one = SampleOrder([1000] * 1281, batch=4096, streams=32, seed=0, window=16384)
    start = time.perf_counter()
    one.global_batch(100_000)
    assert time.perf_counter() - start < 1.0


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: SampleOrder([3, 4], 8, 4, 0, 16), "7 samples, fewer than one global batch of 8"),
        (lambda: SampleOrder([0, 0], 8, 4, 0, 16), "no samples"),
        (lambda: SampleOrder([], 8, 4, 0, 16), "no samples"),
        (lambda: SampleOrder([100], 8, 3, 0, 16), "streams 3 does not divide training.batch 8"),
        (lambda: SampleOrder([100], 8, 4, 0, 0), "at least 1"),
        (lambda: SampleOrder([100], 8, 4, 0, 16).rank_batch(0, 0, 3), "start 1, 2, 4 ranks"),
        (lambda: SampleOrder([100], 8, 4, 0, 16).rank_batch(0, 0, 8), "multiple of 8"),
        (lambda: SampleOrder([100], 8, 4, 0, 16).rank_batch(0, 2, 2), "rank 2 is out of range"),
    ],
)
def test_what_cannot_be_is_refused_with_the_mend(make, names: str) -> None:
    with pytest.raises(InvalidInput, match=names):
        make()
