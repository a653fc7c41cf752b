"""The work queue against a simulated crew: what is handed out, in which order, to whom again, and when it is enough."""

import itertools
from collections import Counter

import numpy as np
import pytest

from rrcm_dist.certification.blocks import BlockCounts, Stage
from rrcm_dist.certification.images import CertifiedImage
from rrcm_dist.certification.plan import planned_blocks
from rrcm_dist.certification.pool.queue import WorkQueue
from rrcm_dist.certification.pool.tasks import ERRORS_BEFORE_FAILURE, LOSSES_BEFORE_ALONE, LOSSES_BEFORE_FAILURE
from rrcm_dist.certification.smoothing.tracks import Track

PLAN = planned_blocks(n0=20, n=250, block=100)
MANY = 10**9
TWO = ("a", "b")


def track(image=0, sigma=0.5, planned=PLAN, in_order=False):
    return Track(CertifiedImage(image, f"key {image}", 0), sigma, planned, in_order)


def result(block, lie=0):
    counts = np.zeros(10, dtype=np.int64)
    counts[[1, 2]] = block.draws - lie, lie
    return BlockCounts(block, counts, "host", 0.1)


def names(tasks):
    return [(task.unit.image, task.unit.stage, task.unit.number) for task in tasks]


def take_all(queue, worker="a", workers=TWO):
    """Batch after batch for `worker`, until it gets nothing."""
    return list(iter(lambda: queue.take(worker, workers, MANY, MANY), []))


def count_and_look(queue, task, worker="a"):
    reason = queue.done(task, worker, result(task.unit))
    while task.track.look():
        reason = reason or queue.looked(task.track)
    return reason


def resumed(image, blocks):
    """A track of which the ledger holds the first `blocks`."""
    begun = track(image)
    whole = track(image)
    begun.resume([result(whole.next_unit()) for _ in range(blocks)])
    return begun


def test_images_with_the_longest_remaining_work_come_first_and_each_is_finished_before_the_next():
    queue = WorkQueue([resumed(0, 2), resumed(1, 0), resumed(2, 1)])
    handed = names(itertools.chain(*take_all(queue)))
    assert [image for image, _, _ in handed] == [1, 1, 1, 1, 2, 2, 2, 0, 0]
    assert handed[:4] == [(1, stage, number) for stage, number, _ in PLAN]
    assert (queue.queued, queue.in_flight) == (0, 9)


def test_a_batch_is_full_where_a_device_asks_for_so_many_however_long_they_take():
    queue = WorkQueue([track(image, planned=PLAN[:1]) for image in range(25)])
    assert len(queue.take("a", TWO, 1, MANY)) == 1
    assert len(queue.take("a", TWO, 1, MANY, least=16)) == 16
    assert len(queue.take("a", TWO, 1, MANY, least=16)) == 8
    assert queue.take("a", TWO, 1, MANY, least=16) == []


def test_batches_shrink_towards_the_end():
    queue = WorkQueue([track(image) for image in range(25)])
    sizes = [len(batch) for batch in take_all(queue)]
    assert sizes[0] == 25
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-5:] == [1] * 5
    assert sum(sizes) == 100


def test_a_batch_holds_no_more_draws_or_blocks_than_asked():
    queue = WorkQueue([track(image) for image in range(25)])
    assert [task.unit.draws for task in queue.take("a", TWO, 150, MANY)] == [20, 100, 100]
    assert len(queue.take("a", TWO, MANY, 4)) == 4


def test_a_block_that_failed_goes_to_another_worker_while_there_is_one():
    queue = WorkQueue([track(planned=PLAN[:1])])
    (task,) = queue.take("a", TWO, MANY, MANY)
    assert queue.failed(task, "a", "NaN") == ""
    assert queue.take("a", TWO, MANY, MANY) == []
    assert queue.queued == 1
    assert queue.take("b", TWO, MANY, MANY) == [task]
    assert queue.failed(task, "b", "NaN") == ""
    assert queue.take("b", ("b", "c"), MANY, MANY) == []  # a is dead, c has not tried
    assert queue.take("c", ("b", "c"), MANY, MANY) == [task]
    assert queue.retried == 2


def test_where_every_worker_failed_any_of_them_tries_again_and_then_the_image_is_given_up():
    queue = WorkQueue([track(0, planned=PLAN[:1]), track(1, planned=PLAN[:1])])
    first, second = queue.take("a", ("a",), MANY, 1) + queue.take("a", ("a",), MANY, 1)
    for attempt in range(ERRORS_BEFORE_FAILURE - 1):
        assert queue.failed(first, "a", f"host: NaN {attempt}") == ""
        assert queue.take("a", ("a",), MANY, MANY) == [first]
    reason = queue.failed(first, "a", "host: at last")
    assert reason == "3 tries failed; the last: host: at last"
    assert first.track.over
    assert not queue.over
    assert count_and_look(queue, second) == ""
    assert queue.over


def test_the_only_worker_does_everything_else_before_it_tries_again_or_audits_itself():
    queue = WorkQueue([track(0), track(1)], audit_every=4)
    batch = queue.take("a", ("a",), MANY, 4)
    assert queue.failed(batch[0], "a", "no") == ""
    for task in batch[1:]:
        assert count_and_look(queue, task) == ""
    rest = list(iter(lambda: queue.take("a", ("a",), 100, 1), []))
    assert names(itertools.chain(*rest)) == [
        *((1, stage, number) for stage, number, _ in PLAN),
        (0, Stage.SELECTION, 0),
    ]


def test_blocks_of_an_image_given_up_are_neither_queued_nor_handed_out_again():
    queue = WorkQueue([track()])
    batch = list(itertools.chain(*take_all(queue)))
    for _ in range(ERRORS_BEFORE_FAILURE - 1):
        for task in batch:
            assert queue.failed(task, "a", "no") == ""
        assert queue.queued == 4
        assert sum(len(again) for again in take_all(queue, "b", ("b",))) == 4
    assert queue.failed(batch[0], "b", "no")
    assert queue.over
    assert (queue.queued, queue.in_flight) == (0, 3)
    assert [queue.failed(task, "b", "no") for task in batch[1:]] == ["", "", ""]
    assert (queue.queued, queue.in_flight) == (0, 0)


def test_blocks_lost_with_two_workers_are_then_counted_alone():
    queue = WorkQueue([track(image) for image in range(25)])
    batch = queue.take("a", TWO, MANY, 10)
    for _ in range(LOSSES_BEFORE_ALONE):
        assert queue.lost(batch, begun=True) == []
        again = queue.take("b", TWO, MANY, 10)
    assert len(again) == 1
    assert again[0] in batch
    assert queue.in_flight == 1
    assert len(queue.take("b", TWO, MANY, 10)) == 1


def test_a_batch_that_waited_behind_another_is_not_blamed_for_the_death_of_its_worker():
    queue = WorkQueue([track(image, planned=PLAN[:1]) for image in range(2)])
    guilty, innocent = queue.take("a", ("a",), MANY, 1), queue.take("a", ("a",), MANY, 1)
    given_up = []
    for death in range(LOSSES_BEFORE_FAILURE + LOSSES_BEFORE_ALONE):
        given_up += queue.lost(guilty, begun=True) + queue.lost(innocent, begun=False)
        guilty, innocent = queue.take(str(death), ("x",), MANY, 1), queue.take(str(death), ("x",), MANY, 1)
        if given_up:
            break
    ((task, reason),) = given_up
    assert reason == "selection block 0: 8 workers in a row died at it or at another part of this image's work"
    assert task.losses == LOSSES_BEFORE_FAILURE
    assert [other.losses for other in guilty] == [0]
    assert innocent == []


def test_an_image_of_which_every_block_kills_its_worker_costs_few_workers():
    planned = planned_blocks(n0=100, n=10_000, block=100)
    queue = WorkQueue([track(planned=planned)])
    deaths = 0
    while not queue.over:
        batch = queue.take("a", ("a",), MANY, MANY)
        deaths += 1
        queue.lost(batch, begun=True)
    assert deaths == LOSSES_BEFORE_ALONE + LOSSES_BEFORE_FAILURE


def test_deaths_with_blocks_counted_in_between_never_give_an_image_up():
    queue = WorkQueue([track(planned=planned_blocks(n0=100, n=100_000, block=100))])
    counted = 0
    while not queue.over:
        batch = queue.take("a", ("a",), 100, 1)
        for _ in range(LOSSES_BEFORE_FAILURE - 1):
            assert queue.lost(batch, begun=True) == []
            batch = queue.take("a", ("a",), 100, 1)
        assert count_and_look(queue, batch[0]) == ""
        counted += 1
    assert counted == 1001


@pytest.mark.parametrize("every", [1, 3])
def test_every_kth_block_is_audited_by_another_worker(every):
    queue = WorkQueue([track(image) for image in range(6)], audit_every=every)
    by_block = Counter()
    while not queue.over:
        for worker in TWO:
            for task in queue.take(worker, TWO, 100, 2):
                assert worker != task.first_worker
                by_block[names([task])[0]] += 1
                assert count_and_look(queue, task, worker) == ""
    assert len(by_block) == 24
    assert sum(by_block.values()) == 24 + 24 // every
    assert queue.audited == 24 // every
    assert (queue.queued, queue.in_flight, queue.retried) == (0, 0, 0)


def test_an_audit_that_differs_gives_the_image_up_and_names_both_workers():
    queue = WorkQueue([track(planned=PLAN[:1])], audit_every=1)
    (task,) = queue.take("one/1", ("one/1", "two/2"), MANY, MANY)
    assert queue.done(task, "one/1", result(task.unit)) == ""
    assert not task.track.look()
    (second,) = queue.take("two/2", ("one/1", "two/2"), MANY, MANY)
    reason = queue.done(second, "two/2", result(second.unit, lie=3))
    assert reason == ("audit: selection block 0 came out differently by one/1 and two/2 (host/worker): 3 of 20 draws")
    assert not second.track.look()
    assert queue.over


def test_idle_workers_count_ahead_in_mode_adaptive_and_what_is_not_needed_is_dropped():
    queue = WorkQueue([track(in_order=True, planned=planned_blocks(20, 1000, 100))])
    batches = take_all(queue)
    assert [len(batch) for batch in batches] == [1] * 10  # selection, the first, and 8 ahead
    assert queue.queued == 0
    tasks = list(itertools.chain(*batches))
    for task in reversed(tasks[1:]):
        assert queue.done(task, "a", result(task.unit)) == ""
        assert task.track.look() == []
    assert count_and_look(queue, tasks[0]) == ""
    assert tasks[0].track.looks == [(100 * k, 100 * k) for k in range(1, 10)]
    tasks[0].track.end()
    queue.looked(tasks[0].track)
    assert queue.over


def test_a_block_counted_ahead_that_fails_gives_its_image_up_only_when_it_is_needed():
    queue = WorkQueue([track(in_order=True, planned=planned_blocks(100, 1000, 100))])
    selection, first, ahead = (queue.take("a", ("a",), MANY, 1)[0] for _ in range(3))
    for _ in range(ERRORS_BEFORE_FAILURE):
        assert queue.failed(ahead, "a", "NaN") == ""
        queue.take("a", ("a",), MANY, 1)
    assert count_and_look(queue, selection) == ""
    assert count_and_look(queue, first) == "3 tries failed; the last: NaN"
    assert queue.over


class Simulation:
    """Workers that die, fail, and are slow at random; tracks whose number of blocks is drawn beforehand."""

    def __init__(self, seed, in_order, audit_every):
        self.random = np.random.default_rng(seed)
        planned = planned_blocks(n0=150, n=int(self.random.integers(100, 3000)), block=100)
        self.tracks = [track(image, in_order=in_order, planned=planned) for image in range(12)]
        least = 3 if in_order else len(planned)
        self.wanted = {id(t): int(self.random.integers(least, len(planned) + 1)) for t in self.tracks}
        self.planned = planned
        for held in self.tracks[:4]:
            whole = track(held.image.image, in_order=in_order, planned=planned)
            held.resume([result(whole.next_unit(99)) for _ in range(int(self.random.integers(0, least)))])
        self.counted = {id(t): t._counted for t in self.tracks}
        self.resumed = dict(self.counted)
        self.queue = WorkQueue([t for t in self.tracks if not t.over], audit_every)
        self.workers, self.out, self.came = [], [], 0
        self.given_up = []

    def step(self):
        act = self.random.choice(["come", "take", "take", "take", "return", "return", "fail", "die"])
        if act == "come" and len(self.workers) < 4:
            self.came += 1
            self.workers.append(f"w{self.came}")
        elif act == "take" and self.workers:
            worker = str(self.random.choice(self.workers))
            if sum(w == worker for w, _ in self.out) < 2:
                batch = self.queue.take(worker, self.workers, int(self.random.integers(1, 800)), 20)
                self.out += [(worker, batch)] if batch else []
        elif act in ("return", "fail") and self.out:
            worker, batch = self.out.pop(int(self.random.integers(len(self.out))))
            self.back(worker, batch, 0.05 if act == "fail" else 0.0)
        elif act == "die" and self.workers and self.random.random() < 0.3:
            worker = self.workers.pop(int(self.random.integers(len(self.workers))))
            lost = [batch for w, batch in self.out if w == worker]
            self.out = [(w, batch) for w, batch in self.out if w != worker]
            for position, batch in enumerate(lost):
                self.given_up += self.queue.lost(batch, begun=position == 0)

    def back(self, worker, batch, failing):
        for task in batch:
            if self.random.random() < failing:
                self.given_up += [task] if self.queue.failed(task, worker, "no") else []
            else:
                assert self.queue.done(task, worker, result(task.unit)) == ""
        for t in {id(task.track): task.track for task in batch}.values():
            while looked := t.look():
                for one in looked:
                    if t._in_order:
                        assert t._position(one.block) == self.counted[id(t)]
                    self.counted[id(t)] += 1
                if self.counted[id(t)] == self.wanted[id(t)]:
                    t.end()
                self.given_up += [t] if self.queue.looked(t) else []

    def check(self):
        queue = self.queue
        assert queue.in_flight == sum(len(batch) for _, batch in self.out)
        again = sum(not task.track.over for task in queue._again)
        assert queue.queued == sum(t.needed for t in self.tracks) + again
        assert queue.left == sum(t.remaining for t in self.tracks)


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("audit_every", [0, 1, 4])
@pytest.mark.parametrize("seed", range(8))
def test_whatever_workers_do_every_block_counts_once_and_in_its_order(seed, in_order, audit_every):
    simulation = Simulation(seed, in_order, audit_every)
    for _ in range(200_000):
        if simulation.queue.over:
            break
        simulation.step()
        simulation.check()
    assert simulation.queue.over
    assert simulation.given_up == []
    for t in simulation.tracks:
        assert t.over
        assert simulation.counted[id(t)] == simulation.wanted[id(t)]
        drawn = sum(draws for _, _, draws in simulation.planned[: simulation.counted[id(t)]])
        assert t.draws == drawn
        assert t.counts(10).selection.sum() == 150
        assert t.counts(10).estimation.sum() == drawn - 150
        assert t._totals.keys() == set(Stage)
