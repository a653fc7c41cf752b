"""What a run tells: lines of valid JSON, and one run in Weights & Biases however often it is started."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from tiny import pretrain_recipe
from wandb_runs import told

from rrcm_dist.config.load import dump_recipe
from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.distributed.world import World, join_world
from rrcm_dist.errors import RunFailure
from rrcm_dist.tracking import ID_FILE
from rrcm_dist.training.watching.metrics import Metrics
from rrcm_dist.training.watching.tracking import Tracker
from rrcm_dist.training.watching.utilisation import DevicePeak
from rrcm_dist.training.work import Work

ALONE = World(0, 1, 0, torch.device("cpu"))


def tracked(shards: Path, output: Path, mode: str = "offline") -> PretrainConfig:
    recipe = pretrain_recipe(shards, output, steps=4)
    return recipe.model_copy(update={"tracking": recipe.tracking.model_copy(update={"wandb": mode})})


def test_an_offline_run_holds_all_metrics(digits: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(dump_recipe(pretrain_recipe(digits, run, steps=4)))
    command = [sys.executable, "-m", "rrcm_dist.cli.main", "pretrain", str(recipe), "--device", "cpu"]
    subprocess.run([*command, "tracking.wandb=offline"], check=True, capture_output=True, timeout=200)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert told(run) == lines
    assert {"step", "samples_seen", "loss", "lr", "images_per_second"} <= lines[0].keys()
    assert {"step", "knn_sigma_0", "knn_sigma_0.5"} <= lines[-1].keys()


def test_a_resumed_run_is_the_same_run_and_tells_steps_again(digits: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    recipe = tracked(digits, tmp_path)
    ids = set()
    for steps in ([1, 2, 3], [2, 3, 4]):
        tracker = Tracker(recipe, tmp_path, ALONE)
        for step in steps:
            tracker.log({"step": step, "loss": 0.5})
        tracker.close()
        ids.add((tmp_path / ID_FILE).read_text())
    assert [line["step"] for line in told(tmp_path)] == [1, 2, 3, 2, 3, 4]
    assert len(ids) == 1
    assert {file.stem.removeprefix("run-") for file in tmp_path.glob("wandb/*/run-*.wandb")} == {ids.pop().strip()}


def test_another_folder_is_another_run_even_at_the_same_path(digits: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    ids = set()
    for _ in range(2):
        Tracker(tracked(digits, tmp_path), tmp_path, ALONE).close()
        ids.add((tmp_path / ID_FILE).read_text())
        (tmp_path / ID_FILE).unlink()
    assert len(ids) == 2


def refusal_without_a_key(shards: Path, folder: Path) -> str:
    os.environ["HOME"] = str(folder)
    os.environ.pop("WANDB_API_KEY", None)
    with join_world("cpu") as world, pytest.raises(RunFailure) as error:
        Tracker(tracked(shards, folder, "online"), folder, world)
    return str(error.value)


@pytest.mark.distributed
def test_where_tracking_cannot_start_no_rank_trains(digits: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    refusals = run_ranks(refusal_without_a_key, 2, tmp_path / "ranks", digits, tmp_path)
    assert refusals[0] == refusals[1]
    assert "wandb login" in refusals[0]
    assert "tracking.wandb=offline" in refusals[0]


class Lines:
    """Takes the place of a run folder: what would be written to metrics.jsonl."""

    path = Path("unused")

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, values: dict) -> None:
        self.lines.append(json.dumps(values, allow_nan=False))


def test_numbers_that_json_does_not_have_are_null(digits: Path, tmp_path: Path) -> None:
    lines = Lines()
    recipe = pretrain_recipe(digits, tmp_path)
    metrics = Metrics(recipe, lines, ALONE, DevicePeak(1e9, "a test"), Work(1e9))  # type: ignore[arg-type]
    metrics.add({"loss": torch.tensor(math.nan), "contrastive": torch.tensor(0.5)})
    metrics.log_steps(1, lr=math.inf)
    metrics.log_evaluation(1, {"knn_sigma_0": math.nan, "knn_sigma_0.5": 0.25})
    first, second = map(json.loads, lines.lines)
    assert (first["loss"], first["contrastive"], first["lr"]) == (None, 0.5, None)
    assert (second["knn_sigma_0"], second["knn_sigma_0.5"]) == (None, 0.25)
