"""Which nodes break communication that fails as a whole: found by tests of pairs, which run side by side."""

from collections.abc import Callable, Sequence

Pair = tuple[str, str]
Test = Callable[[Sequence[Pair]], set[Pair]]
"""Tests disjoint pairs of nodes at the same time; returns those that fail."""


def find_bad(nodes: Sequence[str], test: Test) -> set[str] | None:
    """Nodes that fail even beside one that is known to be good; None where no two nodes are good together.

    Of two that fail together, and each beside a third does not, the second.

    Usually two rounds: in the first all nodes are paired, in the second those of failing pairs are beside good ones.
    """
    failed: set[Pair] = set()
    good: list[str] = []
    for pairs in rounds(nodes):
        failing = test(pairs)
        failed |= failing
        good = [node for pair in pairs if pair not in failing for node in pair]
        if good:
            break
    if not good:
        return None
    bad: set[str] = set()
    suspects = [node for node in nodes if node not in good]
    while suspects:
        pairs = list(zip(good, suspects, strict=False))
        untested = [pair for pair in pairs if not {pair, pair[::-1]} & failed]
        failing = test(untested) if untested else set()
        failed |= failing
        bad |= {suspect for _, suspect in failing.union(set(pairs) - set(untested))}
        suspects = suspects[len(pairs) :]
    return bad | {max(pair, key=nodes.index) for pair in failed if not bad & set(pair)}


def rounds(nodes: Sequence[str]) -> list[list[Pair]]:
    """A tournament: every two nodes meet once, in each round all nodes (of an odd number, all but one)."""
    seats: list[str | None] = [*nodes, *([None] if len(nodes) % 2 else [])]
    half, result = len(seats) // 2, []
    for _ in range(len(seats) - 1):
        facing = zip(seats[:half], reversed(seats[half:]), strict=True)
        result.append([(one, other) for one, other in facing if one is not None and other is not None])
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return result
