"""A warm-up that does not end within the run is refused: by the recipe where that is known, else before training."""

from pathlib import Path

import pytest
from tiny import finetune_recipe, pretrain_recipe

from rrcm_dist.config.load import load_recipe
from rrcm_dist.data.order import SampleOrder
from rrcm_dist.errors import InvalidInput
from rrcm_dist.training.samples import steps_in_all_and_of_warmup

TEN_STEPS_AN_EPOCH = SampleOrder([240], batch=24, streams=12, seed=0, window=100)


@pytest.mark.parametrize("overrides", [["training.steps=15_000"], ["training.steps=10"], ["optimizer.warmup=600_000"]])
def test_pretraining_in_steps(overrides):
    with pytest.raises(InvalidInput, match=r"optimizer.warmup .*steps.* does not end before training.steps"):
        load_recipe("imagenet/pretrain-b", overrides)
    load_recipe("imagenet/pretrain-b", ["training.steps=15_001"])


def test_finetuning_in_epochs():
    with pytest.raises(InvalidInput, match=r"optimizer.warmup 10 .epochs. does not end before training.epochs 10"):
        load_recipe("cifar10/finetune-b-sigma0.5", ["training.epochs=10"])
    load_recipe("cifar10/finetune-b-sigma0.5", ["training.epochs=11"])


def test_no_warm_up_suits_any_length():
    load_recipe("imagenet/pretrain-b", ["training.steps=1", "optimizer.warmup=0"])


def with_warmup(recipe, warmup):
    return recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"warmup": warmup})})


def test_pretraining_in_epochs_is_looked_at_once_the_samples_are_known():
    recipe = pretrain_recipe(Path("shards"), Path("run"), steps=None, epochs=2)
    assert steps_in_all_and_of_warmup(with_warmup(recipe, 19), TEN_STEPS_AN_EPOCH) == (20, 19)
    with pytest.raises(InvalidInput, match="20 steps of warm-up, and the whole run has 20"):
        steps_in_all_and_of_warmup(with_warmup(recipe, 20), TEN_STEPS_AN_EPOCH)


def test_finetuning_in_steps_is_looked_at_once_the_samples_are_known():
    recipe = finetune_recipe(Path("shards"), Path("run"), steps=21)
    assert steps_in_all_and_of_warmup(with_warmup(recipe, 2), TEN_STEPS_AN_EPOCH) == (21, 20)
    with pytest.raises(InvalidInput, match="30 steps of warm-up, and the whole run has 21"):
        steps_in_all_and_of_warmup(with_warmup(recipe, 3), TEN_STEPS_AN_EPOCH)
