"""What stops one rank stops all of them, in words, and what was asked for once is not asked for twice."""

import json
import signal
import time
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from test_resume import start, steps_logged
from tiny import pretrain_recipe

from rrcm_dist.distributed.world import join_world
from rrcm_dist.errors import RunFailure
from rrcm_dist.training.loop import train
from rrcm_dist.training.pretraining import prepare_pretraining
from rrcm_dist.training.watching import guard as guard_module
from rrcm_dist.training.watching.guard import Guard

FINE = torch.tensor(1.0)


def watch_on_two_ranks(folder: Path):
    """What this rank sees: nothing, then a stop asked of rank 1 only, a problem of rank 1, a loss not finite there."""
    with join_world("cpu") as world:
        keys = [f"class/{world.rank}-{row}" for row in range(10)]
        guard, seen = Guard(world, folder), []
        seen.append(guard.watch(0, [FINE, FINE], keys))
        with guard.signals():
            if world.rank == 1:
                signal.raise_signal(signal.SIGTERM)
            seen.append(guard.watch(1, [FINE, FINE], keys))
        for step, number in ((2, FINE), (3, torch.tensor(float("nan"))), (4, torch.tensor(float("-inf")))):
            there = world.rank == 1
            try:
                seen.append(
                    guard.watch(
                        step, [FINE, number if there else FINE], keys, "too many holes" if there and step == 2 else ""
                    )
                )
            except RunFailure as error:
                seen.append(str(error))
        return seen


@pytest.mark.distributed
def test_every_rank_sees_what_one_rank_has(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    first, second = run_ranks(watch_on_two_ranks, 2, tmp_path / "ranks", folder)
    assert first == second
    nothing, asked, problem, nan, infinite = first
    assert (nothing, asked) == (False, True)
    assert problem == "rank 1: too many holes"
    assert "at step 3 is not finite on rank 1 (samples class/1-0, class/1-1, " in nan
    assert "class/1-5 and 4 more" in nan
    assert "class/0-" not in nan
    assert "at step 4 is not finite on rank 1" in infinite
    told = json.loads((folder / "not-finite-step-3.json").read_text())
    assert told == {"step": 3, "keys": {"rank 1": [f"class/1-{row}" for row in range(10)]}}


def train_too_hot(shards: Path, output: Path):
    recipe = pretrain_recipe(shards, output, checkpoint_every=1)
    hot = {"optimizer": {"lr": 1e30}}
    with join_world("cpu") as world, pytest.raises(RunFailure) as raised:
        train(prepare_pretraining(type(recipe).model_validate({**recipe.model_dump(), **hot}), world), world)
    return str(raised.value)


@pytest.mark.distributed
def test_a_run_that_is_not_finite_ends_on_both_ranks_and_keeps_nothing_of_it(digits, tmp_path):
    run = tmp_path / "run"
    first, second = run_ranks(train_too_hot, 2, tmp_path / "ranks", digits, run)
    assert first == second
    assert "is not finite on rank 0, 1 (samples digit-" in first
    (told,) = run.glob("not-finite-step-*.json")
    assert json.loads(told.read_text())["keys"].keys() == {"rank 0", "rank 1"}
    bad_step = int(told.stem.removeprefix("not-finite-step-"))
    kept = sorted(int(folder.name.removeprefix("step-")) for folder in (run / "checkpoints").glob("step-*"))
    assert kept[-1] == bad_step, "the steps before it are kept, it is not"


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr(guard_module.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.fixture
def guard(tmp_path):
    with join_world("cpu") as world:
        watching = Guard(world, tmp_path)
        with watching.signals():
            yield watching


def test_the_same_ctrl_c_from_terminal_and_launcher_counts_once(guard, clock):
    assert guard.watch(0, [FINE], []) is False
    for _ in range(3):
        signal.raise_signal(signal.SIGINT)
        clock.now += 0.5
    assert guard.watch(1, [FINE], []) is True


def test_a_later_ctrl_c_stops_at_once(guard, clock):
    signal.raise_signal(signal.SIGINT)
    clock.now += 10
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_sigterm_never_stops_at_once_however_often_it_comes(guard, clock):
    """A scheduler may send it every few seconds until it kills."""
    for _ in range(5):
        signal.raise_signal(signal.SIGTERM)
        clock.now += 10
    assert guard.watch(0, [FINE], []) is True


def test_signals_are_given_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with join_world("cpu") as world, Guard(world, Path("unused")).signals():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.slow
def test_two_sigterms_in_a_row_keep_a_checkpoint_of_the_run(digits, tmp_path):
    run = tmp_path / "run"
    process = start(pretrain_recipe(digits, run, steps=2000, checkpoint_every=10_000), tmp_path)
    while steps_logged(run) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    assert (checkpoint / "manifest.json").exists()
    assert f"stopped at step {int(checkpoint.name.removeprefix('step-'))}" in output
