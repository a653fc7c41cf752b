"""Loss and gradients of both stages are those of plain autograd on the whole batch, whatever computes them."""

from pathlib import Path

import pytest
import torch
from gradients import STEP, assert_same, gradients_of
from plain_pretraining import batches_and_noise, loss_of, networks
from ranks import run_ranks
from torch import nn
from torch.nn.functional import cosine_similarity
from warming import BLOCKS, DEPTH, alone, own_teacher, warming

from rrcm_dist.distributed.world import join_world
from rrcm_dist.models.rebuilding import trained_network
from rrcm_dist.noise import grid
from rrcm_dist.random_streams import Purpose, numpy_generator
from rrcm_dist.schedules import grid_points
from rrcm_dist.training.loop import train
from rrcm_dist.training.noisy_views import clean_pixels
from rrcm_dist.training.pretraining import prepare_pretraining
from rrcm_dist.training.warmup_step import prepare_warmup
from rrcm_dist.warmup.early_blocks import EarlyBlocks
from rrcm_dist.warmup.teacher import load_teacher

SETTINGS = {1: [(0, None), (1, 5)], 2: [(0, 1), (3, 5)], 3: [(2, 4)], 4: [(1, 5), (3, None)]}
"""Ranks → ZeRO stages and micro-batches; 5 leaves a smaller last one on any number of ranks."""


def teacher_of(recipe):
    return load_teacher(recipe.additions.representation_warmup.teacher, recipe.encoder)


def engine_gradients(shards: Path, output: Path, file: Path):
    """Of both stages; the main one begins from the finished warm-up in `output`."""
    with join_world("cpu") as world:
        found = {}
        for stage, micro_batch in SETTINGS[world.size]:
            recipe = warming(shards, output, file, zero_stage=stage, micro_batch=micro_batch)
            found["warm-up", stage, micro_batch] = gradients_of(
                prepare_warmup(recipe, teacher_of(recipe), world), world
            )
            found["main", stage, micro_batch] = gradients_of(prepare_pretraining(recipe, world), world)
        return found


def teachers_tokens(file: Path, images):
    """Written out: patch tokens before the last block at t_min."""
    network, recipe = trained_network(file)
    kept = {}
    with torch.no_grad():
        t = torch.full((len(images),), recipe.noise.t_min)
        network.encoder(images, t, seen=lambda block, tokens: kept.update({block: tokens}))
    return kept[recipe.encoder.depth - 1][:, 2:]


def plain_warmup(recipe, file: Path):
    (batch, _), *_ = batches_and_noise(warming_without_term(recipe), STEP)
    clean = clean_pixels(batch.plain)
    network = EarlyBlocks(recipe, BLOCKS, 24, 48)
    x = network.encoder._embedded(clean, torch.full((len(clean),), recipe.noise.t_min))
    for block in network.encoder.blocks:
        x = block(x)
    loss = -cosine_similarity(network.head.layers(x[:, 2:]), teachers_tokens(file, clean), dim=-1).mean()
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in network.named_parameters()}


def warming_without_term(recipe):
    """For its batches and noise alone."""
    return recipe.model_copy(update={"additions": type(recipe.additions)()})


def plain_main(recipe, file: Path, start: dict):
    """The loss of rRCM written out, and λ times the alignment of the noisy plain view."""
    online, target = networks(recipe)
    for network in (online, target):
        network.load_state_dict({name: start[name] for name in start if name.startswith("encoder.")}, strict=False)
    batch, z = batches_and_noise(warming_without_term(recipe), STEP)[0]
    head = nn.Module()
    head.layers = nn.Sequential(nn.Linear(32, 24), nn.SiLU(), nn.Linear(24, 24), nn.SiLU(), nn.Linear(24, 48))
    head.load_state_dict({n.removeprefix("heads.alignment."): v for n, v in start.items() if n.startswith("heads.")})
    online.heads["alignment"] = head
    levels = grid(recipe.noise, grid_points(STEP, recipe.training.steps, recipe.noise))
    t = float(levels[numpy_generator(Purpose.NOISE_LEVEL, recipe.seed, STEP).integers(len(levels) - 1)])
    clean, kept = clean_pixels(batch.plain), {}
    online.encoder(clean + t * z, torch.full((len(z),), t), seen=lambda block, tokens: kept.update({block: tokens}))
    alignment = -cosine_similarity(head.layers(kept[1][:, 2:]), teachers_tokens(file, clean), dim=-1).mean()
    loss = loss_of(recipe, online, target, batch, z, STEP) + 2 ** (-STEP / 2) * alignment
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in online.named_parameters()}


@pytest.fixture(scope="module")
def begun(digits, tmp_path_factory):
    """A finished warm-up: its recipe, its teacher, and the weights that the main run starts from."""
    folder = tmp_path_factory.mktemp("begun")
    file = own_teacher(folder)
    recipe = warming(digits, folder / "run", file)
    assert recipe.encoder.depth == DEPTH
    with alone() as world:
        train(prepare_warmup(recipe, teacher_of(recipe), world), world)
        start = prepare_pretraining(recipe, world).step.networks()["online"]
    return recipe, file, start


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.exhaustive), 4])
def test_gradients_of_both_stages_are_those_of_the_whole_batch(ranks, begun, digits, tmp_path):
    recipe, file, start = begun
    expected = {"warm-up": plain_warmup(recipe, file), "main": plain_main(recipe, file, start)}
    for found in run_ranks(engine_gradients, ranks, tmp_path, digits, Path(recipe.output), file):
        assert len(found) == 2 * len(SETTINGS[ranks])
        for (stage, *_), gradients in found.items():
            assert_same(gradients, expected[stage])


def test_every_image_of_the_batch_is_in_the_warm_ups_gradient(begun):
    """The gradient of the step is the mean of those that its images have alone, of which none vanishes."""
    recipe, file, _ = begun
    (batch, _), *_ = batches_and_noise(warming_without_term(recipe), STEP)
    clean = clean_pixels(batch.plain)
    network, tokens = EarlyBlocks(recipe, BLOCKS, 24, 48), teachers_tokens(file, clean)
    weight = network.encoder.blocks[0].mlp.fc1.weight
    alone_each = []
    for row in range(len(clean)):
        (gradient,) = torch.autograd.grad(network(clean[row : row + 1], tokens[row : row + 1]).sum(), weight)
        alone_each.append(gradient)
    assert all(bool(gradient.any()) for gradient in alone_each)
    with alone() as world:
        _, found = gradients_of_one(prepare_warmup(recipe, teacher_of(recipe), world))
    torch.testing.assert_close(
        found["encoder.blocks.0.mlp.fc1.weight"], torch.stack(alone_each).mean(dim=0), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize(("stage", "micro_batch"), SETTINGS[1])
def test_gradients_of_one_process_in_micro_batches_are_those_of_the_whole_batch(stage, micro_batch, begun, digits):
    of_begun, file, start = begun
    recipe = warming(digits, Path(of_begun.output), file, zero_stage=stage, micro_batch=micro_batch)
    with alone() as world:
        warmup = gradients_of_one(prepare_warmup(recipe, teacher_of(recipe), world))
        main = gradients_of_one(prepare_pretraining(recipe, world))
    assert_same(warmup, plain_warmup(recipe, file))
    assert_same(main, plain_main(recipe, file, start))


def gradients_of_one(training):
    from deepspeed.utils import safe_get_full_grad

    loss = training.step.backward(next(iter(training.batches(STEP))), STEP)["loss"]
    engine, found = training.step.engine, {}
    for name, parameter in engine.network.named_parameters():
        found[name] = (parameter.grad if engine.stage == 0 else safe_get_full_grad(parameter)).clone()
    return loss, found
