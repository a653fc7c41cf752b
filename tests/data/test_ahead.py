"""One item is made ahead of the one in use: never more, in order, with its errors."""

import itertools
import threading
import time

import pytest

from rrcm_dist.data.ahead import MadeAhead


def settled(made: list, count: int) -> bool:
    """Whether `count` items are made soon, and no further one then."""
    deadline = time.monotonic() + 10
    while len(made) < count and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    return len(made) == count


def test_one_item_is_made_while_the_one_before_it_is_in_use_and_no_more() -> None:
    made: list[int] = []
    source = (made.append(number) or number for number in range(4))
    ahead = MadeAhead(source)
    for number in ahead:
        assert settled(made, min(number + 2, 4))
    assert made == [0, 1, 2, 3]


def test_an_error_comes_after_the_items_before_it() -> None:
    ahead = iter(MadeAhead(10 // (2 - number) for number in itertools.count()))
    assert [next(ahead), next(ahead)] == [5, 10]
    with pytest.raises(ZeroDivisionError):
        next(ahead)


def test_closing_ends_the_thread_and_says_where_that_takes_longer() -> None:
    ahead = MadeAhead(itertools.count())
    assert next(iter(ahead)) == 0
    assert ahead.close(timeout_seconds=10)
    held = threading.Event()
    ahead = MadeAhead(held.wait() for _ in range(2))
    assert not ahead.close(timeout_seconds=0.01)
    held.set()
    assert ahead.close(timeout_seconds=10)
