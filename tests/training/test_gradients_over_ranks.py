"""Loss and gradients of a step are those of one process on the whole batch, whatever computes them."""

from pathlib import Path

import pytest
from gradients import assert_same, gradients_of, one_process_reference
from ranks import run_ranks
from tiny import finetune_recipe, pretrain_recipe

from rrcm_dist.distributed.world import join_world
from rrcm_dist.training.finetuning import prepare_finetuning
from rrcm_dist.training.pretraining import prepare_pretraining

SETTINGS = [(0, None), (0, 1), (1, None), (1, 3), (1, 5), (2, None), (2, 4), (3, None), (3, 5)]
"""ZeRO stage and micro-batch; 5 leaves a smaller last one on any number of ranks."""


def pretraining_gradients(shards: Path):
    with join_world("cpu") as world:
        results = {}
        for stage, micro_batch in SETTINGS:
            recipe = pretrain_recipe(shards, Path("unused"), zero_stage=stage, micro_batch=micro_batch)
            results[stage, micro_batch] = gradients_of(prepare_pretraining(recipe, world), world)
        return results


def finetuning_gradients(shards: Path):
    with join_world("cpu") as world:
        results = {}
        for stage, micro_batch in [(1, None), (1, 2), (2, 3), (3, 2)]:
            recipe = finetune_recipe(shards, Path("unused"), zero_stage=stage, micro_batch=micro_batch)
            results[stage, micro_batch] = gradients_of(prepare_finetuning(recipe, world), world)
        return results


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [1, 2, pytest.param(3, marks=pytest.mark.exhaustive), 4])
def test_pretraining_gradients_are_those_of_one_process_on_the_whole_batch(ranks, digits, tmp_path):
    expected = one_process_reference(digits)
    for results in run_ranks(pretraining_gradients, ranks, tmp_path, digits):
        assert results.keys() == set(SETTINGS)
        for found in results.values():
            assert_same(found, expected)


@pytest.mark.distributed
def test_finetuning_gradients_do_not_depend_on_ranks_stages_or_micro_batches(digits, tmp_path):
    expected = run_ranks(finetuning_gradients, 1, tmp_path / "one", digits)[0][1, None]
    for ranks in (2, 3):
        for results in run_ranks(finetuning_gradients, ranks, tmp_path / str(ranks), digits):
            for found in results.values():
                assert_same(found, expected)
