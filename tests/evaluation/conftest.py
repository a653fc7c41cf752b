"""Tiny checkpoints of digits, trained for a few steps, and shards of something else."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny import finetune_recipe, pretrain_recipe

from rrcm_dist.cli.training import run_training


@pytest.fixture(scope="session")
def pretrained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-training run of four steps, with online and target networks and an average."""
    output = tmp_path_factory.mktemp("pretrained")
    run_training(pretrain_recipe(digits, output, steps=4, checkpoint_every=4, averages=(0.5,)), "cpu", "auto")
    return output


@pytest.fixture(scope="session")
def finetuned(digits: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuning run of four steps at σ 0.25."""
    output = tmp_path_factory.mktemp("finetuned")
    run_training(finetune_recipe(digits, output, pretrained, steps=4, checkpoint_every=4), "cpu", "auto")
    return output


@pytest.fixture(scope="session")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of six images of two classes, of another size and shape than digits."""
    folder = tmp_path_factory.mktemp("two-classes")
    for name in ("dark", "light"):
        images = folder / "images" / name
        images.mkdir(parents=True)
        for i in range(3):
            grey = 40 * i + (120 if name == "light" else 0)
            cv2.imwrite(str(images / f"{i}.png"), np.full((32, 48, 3), grey, np.uint8))
    command = [sys.executable, "-m", "shards", "build", "imagefolder", str(folder / "images"), str(folder / "shards")]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "shards"
