"""Which nodes break communication, found by tests of pairs."""

import itertools

import pytest

from cluster.preflight.pairs import find_bad, rounds


def where_pairs_fail(fails):
    """A test in which the pairs of `fails` fail; counts its rounds."""

    def test(pairs):
        nodes = [node for pair in pairs for node in pair]
        assert len(nodes) == len(set(nodes)), "pairs that run side by side share no node"
        test.rounds += 1
        return {pair for pair in pairs if fails(*pair)}

    test.rounds = 0
    return test


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 9])
def test_in_a_tournament_every_two_meet_once(count):
    met = [frozenset(pair) for pairs in rounds(range(count)) for pair in pairs]
    assert sorted(map(sorted, met)) == sorted(map(list, itertools.combinations(range(count), 2)))


@pytest.mark.parametrize("count", [3, 4, 5, 8, 9])
def test_any_one_bad_node_is_found_in_few_rounds(count):
    nodes = [f"node{number}" for number in range(count)]
    for bad in nodes:
        test = where_pairs_fail(lambda one, other, bad=bad: bad in (one, other))
        assert find_bad(nodes, test) == {bad}
        assert test.rounds <= 3


def test_many_bad_nodes_are_found_beside_one_good_pair():
    nodes = [f"node{number}" for number in range(8)]
    bad = set(nodes) - {"node2", "node5"}
    assert find_bad(nodes, where_pairs_fail(lambda one, other: bool(bad & {one, other}))) == bad


def test_where_no_two_nodes_communicate_nobody_is_to_blame():
    assert find_bad(["a", "b", "c"], where_pairs_fail(lambda one, other: True)) is None


def test_where_any_two_communicate_none_is_bad():
    assert find_bad(["a", "b", "c", "d"], where_pairs_fail(lambda one, other: False)) == set()


def test_of_two_that_fail_only_together_the_second_is_bad():
    assert find_bad(["a", "b", "c"], where_pairs_fail(lambda one, other: {one, other} == {"b", "c"})) == {"c"}
