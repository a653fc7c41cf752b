"""Loss and gradients of a step are those of one process on the whole batch, whatever computes them."""

import copy
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from tiny import finetune_recipe, pretrain_recipe
from torch import nn

from rrcm_dist.data.photometric import apply_photometric
from rrcm_dist.distributed.batch_norm import GlobalBatchNorm
from rrcm_dist.distributed.world import join_world
from rrcm_dist.models.rrcm import PretrainingNetwork
from rrcm_dist.noise import grid
from rrcm_dist.objectives.contrastive import nce_loss
from rrcm_dist.random_streams import Purpose, numpy_generator
from rrcm_dist.schedules import grid_points
from rrcm_dist.training.finetuning import prepare_finetuning
from rrcm_dist.training.noise_draws import training_noise
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
    """The step written out plainly: torch's own batch norm and autograd, every pass one by one, no engine."""
    recipe = pretrain_recipe(shards, Path("unused"))
    with join_world("cpu") as world:
        batch = next(iter(prepare_pretraining(recipe, world).batches(STEP)))
        z = training_noise(recipe, world, STEP, batch.plain.shape)
    online = PretrainingNetwork(recipe.encoder, recipe.projector, recipe.noise, recipe.seed)
    online.projector = nn.Sequential(*map(with_torchs_batch_norm, online.projector))
    target = copy.deepcopy(online)
    levels = grid(recipe.noise, grid_points(STEP, 8, recipe.noise))
    index = numpy_generator(Purpose.NOISE_LEVEL, recipe.seed, STEP).integers(len(levels) - 1)
    a = apply_photometric(batch.view_a, batch.photometric_a)
    b = apply_photometric(batch.view_b, batch.photometric_b)
    x = batch.plain.float() / 127.5 - 1

    def represent(network, images, t):
        return network.encoder(images + float(t) * z, torch.full((len(z),), float(t)))

    def project(network, images):
        return network.projector(represent(network, images, levels[-1]))

    with torch.no_grad():
        target_a, target_b = project(target, a), project(target, b)
        less_noisy = represent(online, x, levels[index + 1])
    loss = (
        nce_loss(project(online, a), target_b, 0, recipe.temperature)
        + nce_loss(project(online, b), target_a, 0, recipe.temperature)
        + nce_loss(represent(online, x, levels[index]), less_noisy, 0, recipe.temperature)
    ).mean()
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in online.named_parameters()}


def with_torchs_batch_norm(layer: nn.Module) -> nn.Module:
    return nn.BatchNorm1d(layer.weight.shape[0]) if isinstance(layer, GlobalBatchNorm) else layer


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
