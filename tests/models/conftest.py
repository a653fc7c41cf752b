"""Weights files of ours, made of the reference's weights."""

from pathlib import Path

import pytest
from released_files import FINETUNE, PRETRAIN, recipe_file, released, released_finetuned, saved

from rrcm_dist.config.load import load_recipe
from rrcm_dist.models.importing import import_weights


@pytest.fixture(scope="session")
def classifier_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuned network at σ 0.5, with seven classes."""
    folder = tmp_path_factory.mktemp("classifier")
    recipe = load_recipe(recipe_file(folder, FINETUNE), kind="finetune")
    import_weights(saved(released_finetuned(), folder / "tuned.pt"), recipe, folder / "model.safetensors")
    return folder / "model.safetensors"


@pytest.fixture(scope="session")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An online network."""
    folder = tmp_path_factory.mktemp("encoder")
    recipe = load_recipe(recipe_file(folder, PRETRAIN), kind="pretrain")
    import_weights(saved(released("online"), folder / "nnet.pth"), recipe, folder / "online.safetensors")
    return folder / "online.safetensors"
