"""What stops one rank stops all of them, and each says why."""

from ranks import run_ranks

from rrcm_dist.distributed.collectives import raise_together
from rrcm_dist.distributed.world import join_world
from rrcm_dist.errors import InvalidInput, RRCMError
from rrcm_dist.training.additions import room


def told_where_rank_1_is_short() -> str:
    with join_world("cpu") as world:
        room.available_bytes = lambda device: 100 if world.rank == 1 else 10**9
        try:
            room.require_memory("a bank", 1000, 0, world, "start more ranks")
        except InvalidInput as error:
            return str(error)
    return ""


def told_where_rank_0_fails() -> str:
    def fail() -> None:
        raise InvalidInput("no such folder")

    with join_world("cpu") as world:
        try:
            raise_together(fail, on_this_rank=world.is_main)
        except RRCMError as error:
            return f"{type(error).__name__}: {error}"
    return ""


def test_a_bank_that_does_not_fit_on_one_rank_is_refused_on_all(tmp_path):
    first, second = run_ranks(told_where_rank_1_is_short, 2, tmp_path)
    assert first == second
    assert first.startswith("rank 1: a bank takes")


def test_what_fails_on_one_rank_is_said_on_the_others(tmp_path):
    told = run_ranks(told_where_rank_0_fails, 2, tmp_path)
    assert told == ["InvalidInput: no such folder", "RunFailure: rank 0: no such folder"]
