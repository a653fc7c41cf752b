"""A track: which blocks of an image are needed, handed out, counted, and found again in a ledger."""

import numpy as np
import pytest

from rrcm_dist.certification.blocks import BlockCounts, Stage
from rrcm_dist.certification.images import CertifiedImage
from rrcm_dist.certification.plan import planned_blocks
from rrcm_dist.certification.smoothing.tracks import Track

PLAN = planned_blocks(n0=150, n=450, block=100)
SELECTION, ESTIMATION = Stage.SELECTION, Stage.ESTIMATION


def track(in_order=False, planned=PLAN):
    return Track(CertifiedImage(7, "key", 3), 0.5, planned, in_order)


def result(block, candidate=1):
    """Selection prefers class 1; in estimation 9 draws of 10 are given `candidate`."""
    counts = np.zeros(4, dtype=np.int64)
    counts[candidate], counts[2] = block.draws - block.draws // 10, block.draws // 10
    return BlockCounts(block, counts, "host", 0.5)


def blocks(planned=PLAN):
    """Every block of a track, in order."""
    whole = track(planned=planned)
    return [whole.next_unit() for _ in planned]


def handed_out(some, ahead=0):
    return [(b.stage, b.number, b.draws) for b in iter(lambda: some.next_unit(ahead), None)]


def test_in_mode_fixed_every_block_is_needed_and_counts_when_it_comes():
    some = track()
    assert some.needed == 7
    assert handed_out(some) == list(PLAN)
    assert some.needed == 0
    for block in reversed(blocks()):
        assert not some.over
        some.accept(result(block))
        assert [counted.block for counted in some.look()] == [block]
    assert some.over
    assert some.draws == 600
    counts = some.counts(4)
    assert (counts.selection.tolist(), counts.estimation.tolist()) == ([0, 135, 15, 0], [0, 405, 45, 0])
    assert (counts.image, counts.key, counts.label, counts.sigma, counts.seconds) == (7, "key", 3, 0.5, 3.5)
    assert counts.looks is None


def test_in_mode_adaptive_one_block_after_the_selection_is_needed_until_it_was_looked_at():
    some = track(in_order=True)
    assert handed_out(some) == list(PLAN[:3])
    selection, estimation = blocks()[:2], blocks()[2:]
    some.accept(result(estimation[0]))
    assert some.look() == []
    for block in selection:
        some.accept(result(block))
    assert [some.look()[0].block for _ in range(3)] == [*selection, estimation[0]]
    assert some.looks == [(90, 100)]
    assert some.needed == 1
    assert handed_out(some, ahead=2) == list(PLAN[3:6])


def test_in_mode_adaptive_looks_are_sums_over_the_blocks_in_order_whenever_they_come():
    some = track(in_order=True)
    handed_out(some, ahead=10)
    for block in reversed(blocks()):
        some.accept(result(block))
    while some.look():
        pass
    assert some.over
    assert some.looks == [(90, 100), (180, 200), (270, 300), (360, 400), (405, 450)]
    assert some.counts(4).looks.tolist() == [[90, 180, 270, 360, 405], [100, 200, 300, 400, 450]]


def test_an_image_that_ended_takes_no_further_block():
    some = track(in_order=True)
    handed_out(some, ahead=3)
    for block in blocks()[:3]:
        some.accept(result(block))
        some.look()
    some.end()
    some.accept(result(blocks()[3]))
    assert some.look() == []
    assert some.next_unit(9) is None
    assert (some.needed, some.remaining, some.draws) == (0, 0, 250)


@pytest.mark.parametrize("held", [[], [0], [2, 5], [0, 1, 2, 3, 4, 5, 6], [6], [1, 3, 4]])
def test_what_the_ledger_holds_is_not_drawn_again_in_mode_fixed(held):
    some = track()
    some.resume([result(blocks()[position]) for position in held])
    assert some.over is (len(held) == 7)
    assert some.remaining == 600 - sum(PLAN[position][2] for position in held)
    assert some.needed == 7 - len(held)
    assert handed_out(some) == [planned for position, planned in enumerate(PLAN) if position not in held]
    assert some.needed == 0


@pytest.mark.parametrize(
    ("held", "counting"), [([], 0), ([0, 1], 2), ([0, 1, 2, 3], 4), ([0, 1, 2, 4, 5], 3), ([1, 2], 0)]
)
def test_in_mode_adaptive_only_what_is_before_the_first_gap_counts_again(held, counting):
    some = track(in_order=True)
    some.resume([result(blocks()[position]) for position in held])
    assert some.draws == sum(draws for _, _, draws in PLAN[:counting])
    assert len(some.looks) == max(0, counting - 2)
    assert handed_out(some) == list(PLAN[counting : max(3, counting + 1)])


def test_the_short_last_block_of_a_smaller_n_is_drawn_anew_as_a_whole():
    smaller = planned_blocks(n0=150, n=250, block=100)
    some = track()
    some.resume([result(block) for block in blocks(smaller)])
    assert handed_out(some) == [(ESTIMATION, 2, 100), (ESTIMATION, 3, 100), (ESTIMATION, 4, 50)]
    assert some.draws == 350


def test_blocks_beyond_a_plan_are_left_out_of_it():
    smaller = planned_blocks(n0=150, n=200, block=100)
    some = track(planned=smaller)
    some.resume([result(block) for block in blocks()])
    assert some.over
    assert some.counts(4).estimation.sum() == 200


def test_a_block_ahead_of_its_turn_that_cannot_be_counted_is_no_end_yet():
    some = track(in_order=True)
    handed_out(some, ahead=2)
    assert some.reject(blocks()[2], "it is needed")
    assert not some.reject(blocks()[3], "NaN")
    for block in blocks()[:3]:
        assert some.doom == ""
        some.accept(result(block))
        some.look()
    assert some.doom == "NaN"
