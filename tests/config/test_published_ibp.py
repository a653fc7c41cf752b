"""The recipes of certified training hold the paper's numbers, written out again; a dry run tells them without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from rrcm_dist.config.ibp_estimate import network_parameters
from rrcm_dist.config.load import dump_recipe, load_recipe
from rrcm_dist.errors import InvalidInput

PUBLISHED = [
    # recipe, network, size, channels, width, ε, clean, ramp, epochs, batch, milestones, λ0, padding, flip
    ("mnist/ibp-cnn7", "cnn7", 28, 1, 64, 0.4, 0, 20, 70, 256, (50, 60), 0.5, 0, 0.0),
    ("cifar10/ibp-cnn7", "cnn7", 32, 3, 64, 8 / 255, 1, 80, 160, 128, (120, 140), 0.5, 2, 0.5),
    ("cifar10/ibp-cnn7-short", "cnn7", 32, 3, 64, 8 / 255, 1, 20, 70, 128, (50, 60), 0.5, 2, 0.5),
    ("tinyimagenet/ibp-wide-resnet", "wide_resnet", 64, 3, 160, 1 / 255, 1, 20, 80, 128, (61, 71), 0.2, 4, 0.5),
]


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row[0])
def test_certified_training_is_as_published(row) -> None:
    recipe = load_recipe(row[0], kind="train-ibp")
    network, epsilon, training = recipe.network, recipe.epsilon, recipe.training
    assert (network.kind, network.image_size, network.channels, network.width) == row[1:5]
    assert epsilon.target == pytest.approx(row[5])
    assert (epsilon.clean_epochs, epsilon.ramp_epochs, training.epochs, training.batch) == row[6:10]
    assert (recipe.optimizer.milestones, recipe.regularizers.weight) == row[10:12]
    assert (recipe.views.padding, recipe.views.flip) == row[12:14]
    assert (network.hidden, network.batch_norm, network.initialization) == (512, True, "ibp")
    assert (recipe.regularizers.tolerance, recipe.regularizers.tightness, recipe.regularizers.balance) == (
        0.5,
        True,
        True,
    )
    optimizer = recipe.optimizer
    assert (optimizer.lr, optimizer.decay, optimizer.clip, optimizer.weight_decay) == (5e-4, 0.2, 10.0, 0.0)


def test_cnn7_has_the_published_layers() -> None:
    weights = 3 * 9 * 64 + 64 * 9 * 64 + 64 * 9 * 128 + 2 * 128 * 9 * 128 + 128 * 16 * 16 * 512 + 512 * 10
    norms = 2 * (64 + 64 + 128 + 128 + 128 + 512)
    assert network_parameters(load_recipe("cifar10/ibp-cnn7", kind="train-ibp")) == weights + norms + 10


@pytest.mark.parametrize(
    ("recipe", "overrides", "told"),
    [
        ("cifar10/ibp-cnn7", ["training.epochs=140"], r"\[120, 140\] do not all come before training.epochs 140"),
        ("cifar10/ibp-cnn7", ["network.groups=4"], "groups is of resnext: a cnn7 has none"),
        ("cifar10/ibp-cnn7", ["network.stem=64"], "stem is of wide_resnet and resnext: a cnn7 has none"),
        ("cifar10/ibp-cnn7", ["network.blocks=2"], "blocks is of wide_resnet and resnext: a cnn7 has none"),
        ("tinyimagenet/ibp-wide-resnet", ["network.groups=4"], "groups is of resnext: a wide_resnet has none"),
    ],
)
def test_what_would_be_without_effect_is_refused(recipe: str, overrides: list[str], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        load_recipe(recipe, overrides, kind="train-ibp")


def test_a_milestone_in_the_last_epoch_is_taken_and_a_recipe_written_back_is_read_again(tmp_path: Path) -> None:
    recipe = load_recipe("cifar10/ibp-cnn7", ["training.epochs=141"], kind="train-ibp")
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(str(tmp_path / "again.yaml"), kind="train-ibp") == recipe


def test_a_dry_run_tells_network_schedule_and_memory_without_torch() -> None:
    program = "import sys; sys.modules['torch'] = None; from rrcm_dist.cli.main import main; main()"
    command = [sys.executable, "-c", program, "train-ibp", "cifar10/ibp-cnn7", "--dry-run", "--gpus", "1"]
    page = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for what in ("convolution 5", "quartic for its first quarter", "after epochs [120, 140]", "in all", "17.2M"):
        assert what in page
