"""Who is to blame for what was said."""

from cluster.preflight.reports import DONE, Finding, Report
from cluster.preflight.verdict import judge_nodes, judge_ranks, stragglers

NODES = ("node1", "node2", "node3")


def reports(*findings, nodes=NODES, doing=DONE):
    """One a node; findings by node, a list each."""
    return [
        Report(name, place, doing, list(own)) for place, (name, own) in enumerate(zip(nodes, findings, strict=True))
    ]


def cut(other):
    return Finding("network", "cut", f"does not get through to {other}", other=other)


def wrong(check="shards", shared=True):
    return Finding(check, "bad", "is wrong", "mend it", shared=shared)


def test_nodes_of_which_none_complains_pass():
    assert judge_nodes(reports([], [], []), 60).passed


def test_what_one_node_alone_finds_is_its_fault():
    verdict = judge_nodes(reports([], [wrong()], []), 60)
    assert verdict.nodes == {"node2": ["shards: is wrong: mend it"]}
    assert verdict.everywhere == []


def test_what_all_nodes_find_is_no_nodes_fault():
    verdict = judge_nodes(reports([wrong()], [wrong()], [wrong()]), 60)
    assert verdict.nodes == {}
    assert verdict.everywhere == ["shards: is wrong: mend it"]


def test_the_only_node_is_to_blame_for_what_is_its_own_and_not_for_what_is_shared():
    assert judge_nodes(reports([wrong()], nodes=["node1"]), 60).everywhere
    assert "node1" in judge_nodes(reports([wrong("shared memory", shared=False)], nodes=["node1"]), 60).nodes


def test_a_warning_does_not_stop_a_run():
    verdict = judge_nodes(reports([Finding("cores", "2", "are few", warning=True)], [], []), 60)
    assert verdict.passed
    assert verdict.warnings == ["node1: cores: are few"]


def test_a_node_that_falls_silent_is_named_with_what_it_did_last():
    said = reports([], [], [cut("node2")])
    said[1].doing = "shards"
    assert judge_nodes(said, 60).nodes["node2"][0].startswith("it came no further than `shards` within 60 s")
    said[1].doing = ""
    assert "Python did not start there" in judge_nodes(said, 60).nodes["node2"][0]


def test_silence_everywhere_blames_nobody():
    verdict = judge_nodes(reports([], [], [], doing=""), 60)
    assert verdict.nodes == {}
    assert verdict.undecided


def test_the_node_that_most_do_not_reach_is_cut_off():
    assert list(judge_nodes(reports([cut("node3")], [cut("node3")], []), 60).nodes) == ["node3"]
    assert list(judge_nodes(reports([], [cut("node1")], [cut("node1")]), 60).nodes) == ["node1"]


def test_of_two_that_do_not_reach_each_other_the_second_is_set_aside():
    found = reports([cut("node2")], [cut("node1")], nodes=NODES[:2])
    assert list(judge_nodes(found, 60).nodes) == ["node2"]


def test_two_nodes_that_are_cut_off_are_both_named():
    nodes = ("node1", "node2", "node3", "node4", "node5")
    bad = [cut("node4"), cut("node5")]
    found = reports(bad, bad, bad, [cut("node5")], [], nodes=nodes)
    assert sorted(judge_nodes(found, 60).nodes) == ["node4", "node5"]


def clock(seconds):
    return [Finding("clock", f"{seconds} s", value=seconds)]


def test_the_clock_that_differs_from_most_is_wrong():
    assert judge_nodes(reports(clock(0.0), clock(1.0), clock(-2.0)), 60).passed
    assert "clock: +600.0 s from" in judge_nodes(reports(clock(0.0), clock(600.0), clock(0.0)), 60).nodes["node2"][0]
    assert list(judge_nodes(reports(clock(0.0), clock(60.0), clock(60.0)), 60).nodes) == ["node1"]
    assert list(judge_nodes(reports(clock(0.0), clock(60.0), nodes=NODES[:2]), 60).nodes) == ["node2"]


def version(number):
    return [Finding("version of torch", number)]


def test_the_version_that_most_have_is_right():
    verdict = judge_nodes(reports(version("2.12"), version("2.13"), version("2.13")), 60)
    assert list(verdict.nodes) == ["node1"]
    assert "torch is 2.12 where others have 2.13" in verdict.nodes["node1"][0]


def test_code_that_differs_is_a_warning():
    code = [[Finding("version of code", digest)] for digest in ("a", "b", "a")]
    verdict = judge_nodes(reports(*code), 60)
    assert verdict.passed
    assert verdict.warnings == ["node2: its files of rrcm-dist differ from other nodes'"]


# ---------------------------------------------------------------- ranks


def measured(gigabytes):
    return [Finding("device", "cpu"), Finding("communication", "gloo", value=gigabytes)]


def test_an_all_reduce_that_is_fast_enough_passes():
    found = reports(measured(3.0), measured(2.0), nodes=NODES[:2])
    assert judge_ranks(found, 60, None).passed
    assert judge_ranks(found, 60, 2.0).passed


def test_the_slowest_rank_counts():
    verdict = judge_ranks(reports(measured(3.0), measured(2.0), nodes=NODES[:2]), 60, 2.5)
    assert verdict.undecided == ["the all-reduce's bus bandwidth is 2.00 GB/s; the site asks for 2.5"]


def test_a_device_that_does_not_compute_is_its_nodes_fault_and_nobody_elses_who_waits():
    found = reports([], [Finding("device", "fails", "local rank 1 cannot compute")], nodes=NODES[:2])
    found[0].doing, found[1].doing = "importing torch", "device"
    assert list(judge_ranks(found, 60, None).nodes) == ["node2"]


def test_a_rank_that_does_not_come_to_the_meeting_is_to_blame():
    found = reports([], [], nodes=NODES[:2])
    found[0].doing, found[1].doing = "meeting", "importing torch"
    assert list(judge_ranks(found, 60, None).nodes) == ["node2"]


def test_ranks_that_wait_for_each_other_are_undecided_on_two_nodes_and_not_on_one():
    found = reports([], [], nodes=NODES[:2], doing="all-reduce")
    assert "after 60 s of all-reduce ranks still wait for each other" in judge_ranks(found, 60, None).undecided[0]
    assert stragglers(found) == set()
    found[1].doing = "meeting"
    assert stragglers(found) == {"node2"}
    assert list(judge_ranks(reports([], [], nodes=["node1"] * 2, doing="meeting"), 60, None).nodes) == ["node1"]
