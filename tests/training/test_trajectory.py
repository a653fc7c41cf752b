"""Whole runs of `train` move weights, averages and statistics as plain torch on the whole batch does."""

from pathlib import Path

import pytest
import torch
from plain_pretraining import plain_run
from ranks import run_ranks
from tiny import finetune_recipe, pretrain_recipe
from trajectories import EPS_AND_LR, PlainRun, assert_same_run, moved, set_learning_rate, state_of, train_with

from rrcm_dist.data.mixing import mix
from rrcm_dist.distributed.world import join_world
from rrcm_dist.models.rrcm import FinetuningNetwork
from rrcm_dist.noise import conditioning_level
from rrcm_dist.objectives.finetuning import finetuning_loss
from rrcm_dist.training.finetuning import prepare_finetuning
from rrcm_dist.training.noise_draws import training_noise
from rrcm_dist.training.pretraining import prepare_pretraining

STEPS = 6
WARMUP = 2
CLIP = 21.5
SETTINGS = {
    1: [(0, 5), (1, None), (2, 7), (3, 7)],
    2: [(0, None), (1, 5), (2, 4), (3, None), (3, 5)],
    3: [(1, 3), (3, 3)],
    4: [(0, None), (1, 4), (2, 5), (3, 4)],
}
"""Number of ranks → ZeRO stages and micro-batches."""
LAYER_DECAY = 0.5


def changed(recipe, **more):
    data = {**recipe.model_dump()["data"], "held_out": None}
    return type(recipe).model_validate({**recipe.model_dump(), "data": data, **more})


def pretraining(shards: Path, output: Path, kind: str, **training):
    optimizer = {"lr": EPS_AND_LR[kind][1], "warmup": WARMUP, "clip": CLIP, "weight_decay": 0.1}
    recipe = pretrain_recipe(shards, output, steps=STEPS, checkpoint_every=100, **training)
    return changed(recipe, optimizer=optimizer, target={"start": 0.8, "end": 0.95})


def finetuning(shards: Path, output: Path, kind: str, **training):
    optimizer = {"lr": EPS_AND_LR[kind][1], "clip": 0.5, "weight_decay": 0.1, "layer_decay": LAYER_DECAY}
    recipe = finetune_recipe(shards, output, steps=STEPS, checkpoint_every=100, **training)
    return changed(recipe, optimizer=optimizer)


def run_folder(folder: Path, kind: str, stage: int, micro_batch: int | None) -> Path:
    return folder / f"{kind}, stage {stage}, micro-batch {micro_batch}"


def run_all(recipe_of, prepare, shards: Path, folder: Path, settings):
    with join_world("cpu") as world:
        for kind, (eps, _) in EPS_AND_LR.items():
            for stage, micro_batch in settings:
                output = run_folder(folder, kind, stage, micro_batch)
                recipe = recipe_of(shards, output, kind, zero_stage=stage, micro_batch=micro_batch)
                train_with(eps, prepare(recipe, world), world)


@pytest.fixture(scope="module")
def plain_pretraining(digits):
    unused = Path("unused")
    return {kind: plain_run(pretraining(digits, unused, kind), eps) for kind, (eps, _) in EPS_AND_LR.items()}


def test_the_plain_runs_clip_some_steps_and_move_everything(plain_pretraining):
    """Else the comparisons below would compare less than they seem to."""
    for kind, plain in plain_pretraining.items():
        assert max(plain.gradient_norms[:WARMUP]) > CLIP, "the warm-up is not clipped, though it would matter"
        assert max(plain.gradient_norms[WARMUP:]) > CLIP > min(plain.gradient_norms[WARMUP:]), kind
        assert all(map(moved(plain), plain.start))


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(
    "ranks", [1, 2, pytest.param(3, marks=pytest.mark.exhaustive), pytest.param(4, marks=pytest.mark.exhaustive)]
)
def test_pretraining_is_plain_adamw_with_clipping_and_an_average(ranks, plain_pretraining, digits, tmp_path):
    run_ranks(run_all, ranks, tmp_path, pretraining, prepare_pretraining, digits, tmp_path, SETTINGS[ranks])
    for kind, plain in plain_pretraining.items():
        for setting in SETTINGS[ranks]:
            assert_same_run(run_folder(tmp_path, kind, *setting), plain, kind)


def plain_finetuning(recipe, eps: float) -> PlainRun:
    """Fine-tune with torch.optim.AdamW, a group of its own for every parameter."""
    network = FinetuningNetwork(recipe.encoder, recipe.classes, recipe.final_norm, recipe.noise, recipe.seed)
    run = PlainRun(state_of(model=network))
    groups = [
        {"params": [parameter], "factor": factor_of(name), "weight_decay": 0.0 if parameter.ndim == 1 else 0.1}
        for name, parameter in network.named_parameters()
    ]
    optimizer = torch.optim.AdamW(groups, eps=eps)
    t = torch.tensor(conditioning_level(recipe.noise, recipe.sigma))
    with join_world("cpu") as world:
        for step, batch in enumerate(prepare_finetuning(recipe, world).batches(0)):
            pixels = batch.images.float() / 127.5 - 1
            images, targets = mix(
                pixels, batch.labels, recipe.classes, recipe.mixing, recipe.seed, step, 0, recipe.data.streams
            )
            noises = [training_noise(recipe, world, step, images.shape, draw) for draw in range(recipe.draws)]
            logits = [network(images + 2 * recipe.sigma * noise, t.expand(len(images))) for noise in noises]
            loss = finetuning_loss(torch.stack(logits), targets, recipe.consistency, recipe.entropy).total
            set_learning_rate(optimizer, step, recipe, 0)
            run.step(optimizer, loss, recipe.optimizer.clip)
    run.end = state_of(model=network)
    return run


def factor_of(name: str) -> float:
    """Two blocks: the head and the final norm at the schedule's rate, each layer below at half of the one above it."""
    if name.startswith(("head.", "encoder.norm.")):
        return 1.0
    below = {"encoder.blocks.1.": 1, "encoder.blocks.0.": 2}
    return LAYER_DECAY ** next((layer for prefix, layer in below.items() if name.startswith(prefix)), 3)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(("ranks", "settings"), [(1, [(0, 5), (1, None), (3, 7)]), (2, [(1, 5), (2, None), (3, 5)])])
def test_finetuning_is_plain_adamw_with_a_rate_for_each_layer(ranks, settings, digits, tmp_path):
    run_ranks(run_all, ranks, tmp_path, finetuning, prepare_finetuning, digits, tmp_path, settings)
    for kind, (eps, _) in EPS_AND_LR.items():
        plain = plain_finetuning(finetuning(digits, Path("unused"), kind), eps)
        assert max(plain.gradient_norms) > 0.5 > min(plain.gradient_norms), plain.gradient_norms
        assert all(map(moved(plain), plain.start))
        for setting in settings:
            assert_same_run(run_folder(tmp_path, kind, *setting), plain, kind)
