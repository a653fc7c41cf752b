"""A run killed at any moment and resumed ends as if nothing had happened: to the bit, on CPU."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny import finetune_recipe, pretrain_recipe

from rrcm_dist.config.load import dump_recipe
from rrcm_dist.training.watching.metrics import MEASURED

STEPS = 14
TRAIN = "from rrcm_dist.cli.main import main; main()"


def start(recipe, folder: Path) -> subprocess.Popen:
    file = folder / f"{Path(recipe.output).name}.yaml"
    file.write_text(dump_recipe(recipe))
    command = [sys.executable, "-c", TRAIN, recipe.kind, str(file), "--device", "cpu"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def steps_logged(run: Path) -> int:
    file = run / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def kill_when(process: subprocess.Popen, run: Path, lines: int, number: int) -> None:
    """Send a signal once the run has logged so many lines, and then a random moment more."""
    while steps_logged(run) < lines and process.poll() is None:
        time.sleep(0.02)
    time.sleep(random.random() * 0.3)
    process.send_signal(number)
    process.communicate(timeout=60)


def weights_of(run: Path) -> dict:
    folder = run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()
    files = sorted(folder.glob("*.safetensors"))
    assert files
    return {f"{file.stem}/{name}": tensor.clone() for file in files for name, tensor in load_file(file).items()}


def metrics_of(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in lines]


def assert_same_end(undisturbed: Path, resumed: Path) -> None:
    expected, found = weights_of(undisturbed), weights_of(resumed)
    assert expected.keys() == found.keys()
    assert all(expected[name].equal(found[name]) for name in expected)
    assert metrics_of(undisturbed) == metrics_of(resumed)


@pytest.mark.slow
@pytest.mark.parametrize("recipe_of", [pretrain_recipe, finetune_recipe])
def test_a_run_killed_twice_and_resumed_ends_with_the_same_bits(recipe_of, digits, tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    finish(start(recipe_of(digits, undisturbed, steps=STEPS), tmp_path))
    for lines in (3, 8):
        process = start(recipe_of(digits, killed, steps=STEPS), tmp_path)
        kill_when(process, killed, lines, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    output = finish(start(recipe_of(digits, killed, steps=STEPS), tmp_path))
    assert "resuming from" in output
    assert_same_end(undisturbed, killed)


@pytest.mark.slow
@pytest.mark.parametrize(("zero_stage", "micro_batch"), [(0, None), (2, 5), (3, 5)])
def test_every_zero_stage_resumes_to_the_same_bits(zero_stage, micro_batch, digits, tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    training = {"steps": STEPS, "zero_stage": zero_stage, "micro_batch": micro_batch}
    finish(start(pretrain_recipe(digits, undisturbed, **training), tmp_path))
    process = start(pretrain_recipe(digits, killed, **training), tmp_path)
    kill_when(process, killed, 5, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert "resuming from" in finish(start(pretrain_recipe(digits, killed, **training), tmp_path))
    assert any("knn_sigma_0.5" in line for line in metrics_of(killed))
    assert_same_end(undisturbed, killed)


def submit(recipe, folder: Path) -> subprocess.Popen:
    """Two ranks of a run, in processes of their own."""
    file = folder / f"{Path(recipe.output).name}.yaml"
    file.write_text(dump_recipe(recipe))
    command = [sys.executable, "-m", "cluster", "submit", recipe.kind, str(file), "--backend", "local", "--ranks", "2"]
    command += ["--threads", "1", "--device", "cpu"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
@pytest.mark.distributed
def test_two_ranks_stopped_and_resumed_end_with_the_same_bits(digits, tmp_path):
    undisturbed, stopped = tmp_path / "undisturbed", tmp_path / "stopped"
    finish(submit(pretrain_recipe(digits, undisturbed, steps=STEPS, micro_batch=5), tmp_path))
    process = submit(pretrain_recipe(digits, stopped, steps=STEPS, micro_batch=5), tmp_path)
    kill_when(process, stopped, 3, signal.SIGTERM)
    assert process.returncode == 130
    assert "resuming from" in finish(submit(pretrain_recipe(digits, stopped, steps=STEPS, micro_batch=5), tmp_path))
    assert_same_end(undisturbed, stopped)


@pytest.mark.slow
def test_ctrl_c_keeps_a_checkpoint_and_says_how_to_go_on(digits, tmp_path):
    run = tmp_path / "run"
    recipe = pretrain_recipe(digits, run, steps=400, checkpoint_every=1000)
    process = start(recipe, tmp_path)
    while steps_logged(run) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "the same command goes on from there" in output
    assert "Traceback" not in output
    assert list((run / "checkpoints").glob("step-*"))


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_aloud(digits, tmp_path):
    run = tmp_path / "run"
    finish(start(pretrain_recipe(digits, run, steps=4), tmp_path))
    expected = weights_of(run)
    newest = run / "checkpoints" / "step-000000004"
    file = newest / "online.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    output = finish(start(pretrain_recipe(digits, run, steps=4), tmp_path))
    assert "step-000000004 is damaged (online.safetensors does not match its checksum)" in output
    assert "resuming from" in output
    assert "step-000000002" in output
    found = weights_of(run)
    assert all(expected[name].equal(found[name]) for name in expected)


def test_another_recipe_in_the_same_folder_is_refused_with_the_keys_that_differ(digits, tmp_path):
    run = tmp_path / "run"
    finish(start(pretrain_recipe(digits, run, steps=2), tmp_path))
    process = start(pretrain_recipe(digits, run, steps=6, batch=12), tmp_path)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "training.batch: 24 there, 12 now" in output
    assert "Traceback" not in output
    assert os.path.exists(run / "checkpoints" / "step-000000002")
