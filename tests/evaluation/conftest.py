"""Tiny checkpoints of digits, trained for a few steps."""

from pathlib import Path

import pytest
from tiny import finetune_recipe, pretrain_recipe

from rrcm_dist.cli.training import run_training


@pytest.fixture(scope="session")
def pretrained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-training run of four steps, with online and target networks."""
    output = tmp_path_factory.mktemp("pretrained")
    run_training(pretrain_recipe(digits, output, steps=4, checkpoint_every=4), "cpu", "auto")
    return output


@pytest.fixture(scope="session")
def finetuned(digits: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuning run of four steps at σ 0.25."""
    output = tmp_path_factory.mktemp("finetuned")
    run_training(finetune_recipe(digits, output, pretrained, steps=4, checkpoint_every=4), "cpu", "auto")
    return output
