"""A run may change its ranks and its ZeRO stage at any step: the samples are the same, the weights to rounding."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from safetensors.torch import load_file
from tiny import finetune_recipe, pretrain_recipe

from rrcm_dist.distributed.world import join_world
from rrcm_dist.training.finetuning import prepare_finetuning
from rrcm_dist.training.loop import train
from rrcm_dist.training.pretraining import prepare_pretraining

STEPS = 6
ROUNDING = 1e-5
"""Largest difference of a loss, relative, and of a weight, in how far the farthest weight of its tensor went."""


def train_until(recipe, last_step: int | None) -> list[str]:
    """Keys of the rank's samples, step by step, of a run that is asked to stop after `last_step`."""
    prepare = prepare_pretraining if recipe.kind == "pretrain" else prepare_finetuning
    with join_world("cpu") as world:
        training = prepare(recipe, world)
        keys: list[str] = []
        deal = training.batches

        def watched(start: int):
            for step, batch in enumerate(deal(start), start=start):
                keys.extend(f"{step} {row} {key}" for row, key in zip(batch.rows.tolist(), batch.keys, strict=True))
                if step + 1 == last_step:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

        object.__setattr__(training, "batches", watched)
        train(training, world)
        return keys


def run_through(recipe_of, shards: Path, folder: Path, lives) -> tuple[Path, set[str]]:
    """A run of several lives (ranks, ZeRO stage, micro-batch, last step); its folder and every sample, with places."""
    run, seen = folder / "run", set()
    for number, (ranks, stage, micro_batch, last_step) in enumerate(lives):
        recipe = recipe_of(shards, run, steps=STEPS, zero_stage=stage, micro_batch=micro_batch, checkpoint_every=100)
        for keys in run_ranks(train_until, ranks, folder / f"life-{number}", recipe, last_step):
            assert not seen.intersection(keys), "a sample was seen twice"
            seen.update(keys)
    return run, seen


def losses(run: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()
    return {
        f"{file.stem}/{name}": t for file in checkpoint.glob("*.safetensors") for name, t in load_file(file).items()
    }


def assert_same_trajectory(run: Path, reference: Path) -> None:
    expected, found = losses(reference), losses(run)
    assert found.keys() == expected.keys() == set(range(1, STEPS + 1))
    for step, loss in expected.items():
        assert abs(found[step] / loss - 1) < ROUNDING, (step, found[step], loss)
    whole, other = weights(reference), weights(run)
    assert whole.keys() == other.keys()
    for name, tensor in whole.items():
        if tensor.is_floating_point():
            error, size = float((other[name] - tensor).abs().max()), float(tensor.abs().max())
            assert error <= 1e-4 * max(size, 1e-2), f"{name}: {error} of {size}"


@pytest.fixture(scope="module")
def undisturbed(digits, tmp_path_factory):
    """Runs of one rank at stage 1 that nothing stopped, by kind; with all samples they saw."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return {
        recipe_of: run_through(recipe_of, digits, folder / recipe_of.__name__, [(1, 1, None, None)])
        for recipe_of in (pretrain_recipe, finetune_recipe)
    }


LIVES = {
    "2 → 1 → 2 ranks": [(2, 1, None, 2), (1, 1, 5, 4), (2, 1, None, None)],
    "3 → 2 → 1 ranks, stages 1 → 3 → 0": [(3, 1, 4, 2), (2, 3, 5, 4), (1, 0, None, None)],
}
MORE_LIVES = {
    "1 → 3 → 4 ranks, stages 0 → 2 → 1": [(1, 0, None, 2), (3, 2, 3, 4), (4, 1, None, None)],
    "2 → 3 ranks, stages 3 → 3": [(2, 3, None, 3), (3, 3, 3, None)],
    "4 → 2 → 4 ranks, stages 2 → 0 → 3": [(4, 2, None, 2), (2, 0, 5, 4), (4, 3, 2, None)],
}


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("name", LIVES)
def test_a_pretraining_that_changes_ranks_and_stages_goes_on_as_if_it_had_not(name, undisturbed, digits, tmp_path):
    assert_goes_on(LIVES[name], undisturbed, digits, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", MORE_LIVES)
def test_more_changes_of_ranks_and_stages(name, undisturbed, digits, tmp_path):
    assert_goes_on(MORE_LIVES[name], undisturbed, digits, tmp_path)


def assert_goes_on(lives, undisturbed, shards: Path, folder: Path) -> None:
    reference, samples = undisturbed[pretrain_recipe]
    run, seen = run_through(pretrain_recipe, shards, folder, lives)
    assert seen == samples
    assert_same_trajectory(run, reference)


@pytest.mark.slow
@pytest.mark.distributed
def test_a_finetuning_that_changes_ranks_and_stages_goes_on_as_if_it_had_not(undisturbed, digits, tmp_path):
    reference, samples = undisturbed[finetune_recipe]
    run, seen = run_through(finetune_recipe, digits, tmp_path, [(2, 1, None, 2), (1, 3, 4, 4), (3, 2, None, None)])
    assert seen == samples
    assert_same_trajectory(run, reference)
