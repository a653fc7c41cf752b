"""The profiler records the steps that are asked for, and leaves files that are whole."""

import gzip
import json
import logging
from pathlib import Path

import pytest
import torch
from tiny import pretrain_recipe

from rrcm_dist.distributed.world import World, join_world
from rrcm_dist.errors import InvalidInput
from rrcm_dist.training.loop import train
from rrcm_dist.training.pretraining import prepare_pretraining
from rrcm_dist.training.watching.profiling import Profiling

ALONE = World(0, 1, 0, torch.device("cpu"))


def profiled(folder: Path, window: tuple[int, int], steps: range) -> list[str]:
    """Names of the files after steps of which each adds up a matrix with as many rows as its number."""
    training = pretrain_recipe(folder, folder, profile=window, steps=100).training
    with Profiling(training, folder, ALONE, steps.start) as profiling:
        for step in steps:
            profiling.begin(step)
            with torch.profiler.record_function(f"step {step}"):
                torch.ones(step + 1, 3).sum()
    return sorted(path.name for path in folder.glob("profile/*"))


def steps_in(folder: Path, name: str) -> list[int]:
    with gzip.open(folder / "profile" / name) as file:
        events = json.load(file)["traceEvents"]
    found = {event["name"] for event in events if event.get("cat") == "user_annotation"}
    return sorted(int(name.removeprefix("step ")) for name in found if name.startswith("step "))


@pytest.mark.parametrize(
    ("window", "steps", "recorded"),
    [
        ((3, 2), range(10), [3, 4]),
        ((0, 1), range(3), [0]),
        ((8, 2), range(10), [8, 9]),
        ((5, 3), range(5, 20), [5, 6, 7]),
    ],
)
def test_the_window_and_nothing_else_is_recorded(window, steps, recorded, tmp_path):
    name = f"rank-0-steps-{recorded[0]}-{recorded[-1]}"
    assert profiled(tmp_path, window, steps) == [f"{name}.json.gz", f"{name}.txt"]
    assert steps_in(tmp_path, f"{name}.json.gz") == recorded
    assert "aten::sum" in (tmp_path / "profile" / f"{name}.txt").read_text()


def test_a_run_that_ends_within_the_window_leaves_what_it_recorded(tmp_path):
    assert profiled(tmp_path, (2, 50), range(5)) == ["rank-0-steps-2-4.json.gz", "rank-0-steps-2-4.txt"]
    assert steps_in(tmp_path, "rank-0-steps-2-4.json.gz") == [2, 3, 4]


def test_a_window_that_is_past_at_the_start_is_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert profiled(tmp_path, (3, 5), range(4, 20)) == []
    assert "begins at step 3, which is past" in caplog.text


def test_a_window_beyond_the_end_is_refused_before_anything_is_trained(digits, tmp_path):
    recipe = pretrain_recipe(digits, tmp_path / "run", steps=8, profile=(6, 3))
    with join_world("cpu") as world, pytest.raises(InvalidInput, match=r"steps 6 to 8, and the run's last step is 7"):
        train(prepare_pretraining(recipe, world), world)
    assert not (tmp_path / "run").exists()


def test_a_run_says_where_its_profile_is(digits, tmp_path, caplog):
    recipe = pretrain_recipe(digits, tmp_path / "run", steps=4, profile=(2, 1), checkpoint_every=100)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"held_out": None})})
    with join_world("cpu") as world, caplog.at_level(logging.INFO):
        train(prepare_pretraining(recipe, world), world)
    assert "rank-0-steps-2-2.json.gz" in caplog.text
    table = (tmp_path / "run" / "profile" / "rank-0-steps-2-2.txt").read_text()
    assert "aten::mm" in table or "aten::addmm" in table
