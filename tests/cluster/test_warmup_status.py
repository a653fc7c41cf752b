"""The status of a submitted run knows of its first stage: a representation warm-up in OUTPUT/warmup."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from warming import warming

from cluster.jobs.training import TrainingJob
from cluster.record.progress import newest_step
from cluster.watching.status import progress_line
from rrcm_dist.config.load import dump_recipe
from rrcm_dist.errors import InvalidInput


def stage(folder: Path, step: int, samples: int, total: int, finished: bool) -> None:
    """A stage of 24 images a step as it looks after some of its steps."""
    checkpoint = folder / "checkpoints" / f"step-{step:09d}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text(json.dumps({"progress": {"step": step, "finished": finished}}))
    line = {"step": step, "samples_seen": samples, "images_per_second": 12.0}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "recipe.yaml").write_text(f"training: {{batch: 24, steps: {total}}}\n")


def test_status_tells_of_the_first_stage_while_it_runs_and_then_of_the_main_one(tmp_path):
    stage(tmp_path / "warmup", 4, 96, 10, finished=False)
    assert progress_line(tmp_path, []) == "warmup: step 4 of 10, 96 samples, 12 images/s, ETA 12 s"
    stage(tmp_path, 20, (10 + 20) * 24, 50, finished=False)
    seconds = timedelta(seconds=(50 - 20) * 24 / 12).seconds
    assert progress_line(tmp_path, []) == f"step 20 of 50, 720 samples, 12 images/s, ETA 1 min {seconds - 60} s"


def test_a_life_that_came_further_in_the_first_stage_came_further(tmp_path):
    assert newest_step(tmp_path) == 0
    stage(tmp_path / "warmup", 4, 96, 4, finished=True)
    assert newest_step(tmp_path) == 4
    stage(tmp_path, 2, 144, 8, finished=False)
    assert newest_step(tmp_path) == 6


def test_a_teacher_that_is_not_there_is_told_when_the_run_is_submitted(digits, tmp_path):
    recipe = warming(digits, tmp_path / "run", tmp_path / "no-teacher")
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    job = TrainingJob("pretrain", str(tmp_path / "recipe.yaml"), (), "auto", recipe)
    with pytest.raises(InvalidInput, match=r"teacher\.weights .*no-teacher cannot be found"):
        job.check_inputs(waits=False)
    job.check_inputs(waits=True)
