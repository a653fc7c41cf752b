"""Weights files of ours, made of the reference's weights."""

from pathlib import Path

import pytest
from released_files import FINETUNE, PRETRAIN, recipe_file, released, released_finetuned, saved

from rrcm_dist.config.load import load_recipe
from rrcm_dist.models.importing import import_weights


@pytest.fixture
def classifier_file(tmp_path: Path) -> Path:
    """A fine-tuned network at σ 0.5, with seven classes."""
    recipe = load_recipe(recipe_file(tmp_path, FINETUNE), kind="finetune")
    import_weights(saved(released_finetuned(), tmp_path / "tuned.pt"), recipe, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def encoder_file(tmp_path: Path) -> Path:
    """An online network."""
    recipe = load_recipe(recipe_file(tmp_path, PRETRAIN), kind="pretrain")
    import_weights(saved(released("online"), tmp_path / "nnet.pth"), recipe, tmp_path / "online.safetensors")
    return tmp_path / "online.safetensors"
