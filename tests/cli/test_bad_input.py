"""A user's mistake is told in one message without a traceback: exit code 2 for usage, 1 for failure."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from tiny import finetune_recipe, pretrain_recipe

from rrcm_dist import __version__
from rrcm_dist.cli.main import main
from rrcm_dist.config.load import dump_recipe


def run(monkeypatch, capfd, *arguments) -> tuple[int, str]:
    """Exit code and everything printed by `rrcm ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["rrcm", *map(str, arguments)])
    code = 0
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capfd.readouterr()
    text = captured.out + captured.err
    assert "Traceback" not in text, text
    return code, " ".join(text.split())


@pytest.fixture
def recipe(digits, tmp_path) -> Path:
    file = tmp_path / "pretrain.yaml"
    file.write_text(dump_recipe(pretrain_recipe(digits, tmp_path / "run", steps=2)))
    return file


WRONG = [
    (["training.batchh=3"], "training.batchh: unknown key; did you mean training.batch"),
    (["encoder.patch=5"], "patch 5 does not divide image_size 16"),
    (["encoder.heads=3"], "heads 3 does not divide width 32"),
    (["data.streams=7"], "data.streams 7 does not divide training.batch 24"),
    (["training.batch=-1"], "training.batch"),
    (["training.precision=fp8"], "training.precision"),
    (["data.train=nowhere"], "nowhere"),
    (["training.batch=24000", "data.streams=12"], "24000"),
    (["optimizer.lr=0"], "optimizer.lr"),
    (["noise.t_min=100"], "t_min"),
    (["training.attention=xformers"], "xformers"),
]


@pytest.mark.parametrize(("overrides", "told"), WRONG)
def test_an_impossible_recipe_is_told_before_anything_is_written(overrides, told, recipe, tmp_path, monkeypatch, capfd):
    code, text = run(monkeypatch, capfd, "pretrain", recipe, "--device", "cpu", *overrides)
    assert code == 2, text
    assert told in text
    assert not (tmp_path / "run").exists()


def test_an_unknown_option_is_a_usage_error(recipe, monkeypatch, capfd):
    code, text = run(monkeypatch, capfd, "pretrain", recipe, "--fast")
    assert code == 2
    assert "--fast" in text


def test_ranks_that_do_not_divide_the_streams_are_told(recipe, tmp_path):
    import subprocess

    environment_of_torchrun = ["--nproc-per-node", "5", "-m", "rrcm_dist.cli.main", "pretrain", str(recipe)]
    command = [sys.executable, "-m", "torch.distributed.run", *environment_of_torchrun, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode != 0
    assert "12" in done.stderr
    assert "ranks" in done.stderr


def test_a_folder_without_images_and_an_empty_folder_are_told(tmp_path, recipe, monkeypatch, capfd):
    (tmp_path / "empty").mkdir()
    code, text = run(monkeypatch, capfd, "pretrain", recipe, f"data.train={tmp_path / 'empty'}", "--device", "cpu")
    assert code == 2
    assert "python -m shards build" in text


def test_fine_tuning_from_a_checkpoint_of_another_shape_names_the_tensors(digits, tmp_path, recipe, monkeypatch, capfd):
    code, text = run(monkeypatch, capfd, "pretrain", recipe, "--device", "cpu")
    assert code == 0, text
    file = tmp_path / "finetune.yaml"
    file.write_text(dump_recipe(finetune_recipe(digits, tmp_path / "tuned", start_from=tmp_path / "run", steps=2)))
    code, text = run(monkeypatch, capfd, "finetune", file, "--device", "cpu", "encoder.width=48", "encoder.heads=4")
    assert code == 2
    assert "encoder.cls_token: (1, 1, 32) there, (1, 1, 48) here" in text
    assert not (tmp_path / "tuned").exists()


def test_fine_tuning_from_nothing_names_the_path(digits, tmp_path, monkeypatch, capfd):
    file = tmp_path / "finetune.yaml"
    file.write_text(dump_recipe(finetune_recipe(digits, tmp_path / "tuned", start_from=tmp_path / "gone", steps=2)))
    code, text = run(monkeypatch, capfd, "finetune", file, "--device", "cpu")
    assert code == 2
    assert str(tmp_path / "gone") in text


def test_a_loss_that_is_not_finite_stops_with_step_rank_and_samples(digits, tmp_path, recipe, monkeypatch, capfd):
    code, _ = run(monkeypatch, capfd, "pretrain", recipe, "--device", "cpu", "training.checkpoint_every=1")
    assert code == 0
    code, text = run(
        monkeypatch, capfd, "pretrain", recipe, "--device", "cpu", f"output={tmp_path / 'hot'}",
        "optimizer.lr=1e30", "optimizer.warmup=0", "optimizer.clip=null", "training.steps=6",
    )  # fmt: skip
    assert code == 1
    assert "is not finite on rank 0" in text
    assert "digit-" in text
    assert list((tmp_path / "hot").glob("not-finite-step-*.json"))


def test_a_disk_without_room_for_a_checkpoint_is_told_with_what_is_needed(recipe, monkeypatch, capfd):
    usage = shutil.disk_usage("/")
    # What is replaced is the operating system's answer alone: no test may fill the machine's disk.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    code, text = run(monkeypatch, capfd, "pretrain", recipe, "--device", "cpu")
    assert code == 1
    assert "a checkpoint needs" in text
    assert "1.0 kB are free" in text


def test_damaged_weights_are_told(digits, tmp_path, monkeypatch, capfd):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"not weights at all")
    torch.save({"a": object}, tmp_path / "code.pt")
    for file in (bad, tmp_path / "code.pt"):
        recipe = tmp_path / "finetune.yaml"
        recipe.write_text(dump_recipe(finetune_recipe(digits, tmp_path / "tuned", start_from=file, steps=2)))
        code, text = run(monkeypatch, capfd, "finetune", recipe, "--device", "cpu")
        assert code == 1, text
        assert str(file) in text


def test_the_version_is_told(monkeypatch, capfd):
    code, text = run(monkeypatch, capfd, "--version")
    assert code == 0
    assert text == __version__
