"""Which lives of a run are followed by another."""

from datetime import UTC, datetime

import pytest

from cluster.record.history import Cause, History, Life
from cluster.record.policy import DRAW, goes_on

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def lives(*ends, job="7"):
    return [Life(number, job, NOW, 0, NOW, cause, step) for number, (cause, step) in enumerate(ends)]


@pytest.mark.parametrize("cause", [Cause.TIME_LIMIT, Cause.PREEMPTED, Cause.REQUEUED, Cause.NODE_LOST])
def test_what_is_nobodys_fault_is_borne_without_limit(cause):
    assert goes_on(lives(*[(cause, 10)] * 50), crashes_allowed=0) == (True, "")


@pytest.mark.parametrize("cause", [Cause.DONE, Cause.CANCELLED, Cause.REFUSED])
def test_some_ends_are_the_end(cause):
    assert goes_on(lives((cause, 10)), crashes_allowed=3) == (False, "")


def test_crashes_are_borne_as_often_as_allowed():
    crashes = [(Cause.CRASHED, step) for step in (10, 20, 30)]
    assert goes_on(lives(*crashes), crashes_allowed=3)[0]
    assert goes_on(lives(*crashes), crashes_allowed=2) == (
        False,
        "it crashed 3 times, and the site allows 2 (crashes_allowed)",
    )


def test_two_crashes_without_progress_are_the_end_even_with_a_preemption_between():
    again, why = goes_on(lives((Cause.CRASHED, 10), (Cause.PREEMPTED, 10), (Cause.CRASHED, 10)), crashes_allowed=9)
    assert (again, why) == (False, "it crashed twice without getting beyond the checkpoint of step 10")


def test_unfit_nodes_are_set_aside_a_few_times():
    unfit = [Life(n, "7", NOW, 0, NOW, Cause.PREFLIGHT, 0, excluded=(f"node{n}",)) for n in range(6)]
    assert goes_on(unfit[:5], crashes_allowed=0) == (True, "")
    again, why = goes_on(unfit, crashes_allowed=0)
    assert not again
    assert "6 times in one job nodes were unfit" in why


def test_an_unfit_node_that_cannot_be_done_without_is_the_end():
    assert goes_on(lives((Cause.PREFLIGHT, 0)), crashes_allowed=3) == (False, "")


def test_nodes_set_aside_are_remembered_by_job(tmp_path):
    history = History(tmp_path)
    for job, nodes in (("7", ["node3"]), ("7", ["node1", "node3"]), ("8", ["node2"]), ("8", [])):
        history.end(history.begin(job, 0), Cause.PREFLIGHT, 0, "unfit", nodes)
    assert history.excluded("7") == ["node1", "node3"]
    assert history.excluded("8") == ["node2"]
    assert history.lives()[1].excluded == ("node1", "node3")


def test_a_resubmitted_run_begins_its_count_anew():
    before = lives((Cause.CRASHED, 10), (Cause.CRASHED, 10))
    now = Life(2, "8", NOW, 10, NOW, Cause.CRASHED, 10)
    assert goes_on([*before, now], crashes_allowed=1)[0]


def test_a_life_that_ended_without_a_word_lost_its_node(tmp_path):
    history = History(tmp_path)
    history.begin("7", 0)
    with open(tmp_path / "cluster" / "lives.jsonl", "a") as file:
        file.write('{"life": 0, "event": "end')  # the disk was full, or the node died
    assert history.lives()[0].cause is None
    history.end(history.begin("7", 25), Cause.DONE, 30, "well")
    first, second = history.lives()
    assert (first.number, first.cause, first.end_step) == (0, Cause.NODE_LOST, 25)
    assert (second.number, second.start_step, second.cause, second.detail) == (1, 25, Cause.DONE, "well")


@pytest.mark.parametrize(("ends", "again"), [
    ([(0, 0), (0, 0)], False),
    ([(0, 0)], True),
    ([(0, 25), (25, 25)], True),
    ([(0, 25), (25, 25), (25, 25)], False),
    ([(0, 0), (0, 25), (25, 25)], True),
])  # fmt: skip
def test_two_time_limits_without_progress_are_the_end(ends, again):
    before = [Life(number, "7", NOW, start, NOW, Cause.TIME_LIMIT, end) for number, (start, end) in enumerate(ends)]
    goes, why = goes_on(before, crashes_allowed=0)
    assert goes is again
    assert ("give it a longer time_limit" in why) is not again


def test_a_life_without_a_word_before_another_job_lost_its_supervisor(tmp_path):
    history = History(tmp_path)
    history.begin("7", 0)
    history.begin("8", 25)
    assert history.lives()[0].cause is Cause.CRASHED


def test_a_head_that_waits_for_its_workers_reaches_time_limits_as_often_as_it_likes():
    waited = [Life(number, "7", NOW, 0, NOW, Cause.TIME_LIMIT, 0) for number in range(3)]
    assert goes_on(waited, 0, DRAW, may_wait=True) == (True, "")
    assert goes_on(waited, 0, DRAW) == (
        False,
        "two lives reached the time limit without getting beyond draw 0: give it a longer time_limit",
    )
