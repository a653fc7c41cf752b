"""Loss and gradients of a step are those of one process on the whole batch, whatever computes them."""

from pathlib import Path

import pytest
import torch
from plain_pretraining import batches_and_noise, loss_of, networks
from ranks import run_ranks
from tiny import finetune_recipe, pretrain_recipe

from rrcm_dist.distributed.world import join_world
from rrcm_dist.training.finetuning import prepare_finetuning
from rrcm_dist.training.pretraining import prepare_pretraining

STEP = 3
SETTINGS = [(0, None), (0, 1), (1, None), (1, 3), (2, 4), (3, None), (3, 3)]
"""ZeRO stage and micro-batch."""


def gradients_of(training, world):
    """Loss (mean over ranks) and whole averaged gradients of one step, by parameter name."""
    from deepspeed.utils import safe_get_full_grad

    batch = next(iter(training.batches(STEP)))
    parts = training.step.backward(batch, STEP)
    loss = parts["loss"].detach().clone()
    torch.distributed.all_reduce(loss)
    gradients = {}
    for name, parameter in training.step.engine.network.named_parameters():
        whole = parameter.grad if training.step.engine.stage == 0 else safe_get_full_grad(parameter)
        gradients[name] = whole.detach().clone()
    return loss / world.size, gradients


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


def one_process_reference(shards: Path):
    """The step written out plainly: no engine, no ranks, no micro-batches."""
    recipe = pretrain_recipe(shards, Path("unused"))
    online, target = networks(recipe)
    batch, z = batches_and_noise(recipe, STEP)[0]
    loss = loss_of(recipe, online, target, batch, z, STEP)
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in online.named_parameters()}


def assert_same(found, expected, relative=2e-5):
    (loss, gradients), (expected_loss, expected_gradients) = found, expected
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=0)
    assert gradients.keys() == expected_gradients.keys()
    largest = max(float(g.abs().max()) for g in expected_gradients.values())
    for name, gradient in gradients.items():
        difference = float((gradient - expected_gradients[name]).abs().max())
        scale = float(expected_gradients[name].abs().max())
        assert difference <= relative * max(scale, 1e-3 * largest), f"{name}: {difference} of {scale}"


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [1, 2, 3])
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
