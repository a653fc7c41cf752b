"""Hard negatives and the batch balance loss in pre-training: one process's loss and gradients, exact resumption."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from gradients import assert_same, gradients_of
from plain_pretraining import batches_and_noise, loss_of, networks
from ranks import run_ranks
from safetensors.torch import load_file, save_file
from tiny import pretrain_recipe

from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.data.index import load_index
from rrcm_dist.data.photometric import apply_photometric
from rrcm_dist.distributed.world import World, join_world
from rrcm_dist.noise import grid
from rrcm_dist.schedules import grid_points
from rrcm_dist.training.additions.hard_negatives import STATE
from rrcm_dist.training.loop import train
from rrcm_dist.training.noise_draws import pretraining_levels
from rrcm_dist.training.pretraining import prepare_pretraining
from rrcm_dist.training.watching.metrics import MEASURED

STEP = 3
NEVER = 10**6
SECTION = {"count": 2, "start": 1, "interval": 2, "skip": 2, "windows": 3, "factor": 0.9, "largest_score": 1.0}
GUARD = {"skip_share": 0.01, "of_agreement": 0.99}


def recipe_with(shards: Path, output: Path, additions: dict, **training) -> PretrainConfig:
    recipe = pretrain_recipe(shards, output, **training)
    return PretrainConfig.model_validate(recipe.model_dump() | {"additions": additions})


# --- loss and gradients -----------------------------------------------------------------------------------------------


def filled_bank(shards: Path, recipe: PretrainConfig) -> dict[str, torch.Tensor]:
    """A bank of random representations, with random negatives of every sample; some there are not."""
    samples, config = len(load_index(shards / "train")), recipe.additions.hard_negatives
    generator = torch.Generator().manual_seed(0)
    bank = F.normalize(torch.randn(samples, recipe.projector.output, generator=generator), dim=1)
    assigned = torch.randint(-1, samples, (samples, config.count), generator=generator, dtype=torch.int32)
    one = torch.ones(samples, 1)
    tables = {"bank": bank, "agreement": one, "assigned": assigned, "score": 0.5 * one, "number": one.int()}
    return {**tables, "tally": torch.zeros(3)}


def additions_for(columns: str, grades: str) -> dict:
    never = {**SECTION, "start": 0, "interval": NEVER, "columns": columns, "guard": GUARD}
    return {"hard_negatives": never, "batch_balance": {"grades": grades, "temperature": 0.3}}


SETTINGS = [("shared", "noise_gap", 0, None), ("own", "crop_overlap", 1, 5), ("shared", "crop_overlap", 3, 4)]
"""Columns, grades, ZeRO stage, micro-batch."""


def step_gradients(shards: Path, checkpoint: Path):
    with join_world("cpu") as world:
        results = {}
        for columns, grades, stage, micro_batch in SETTINGS:
            additions = additions_for(columns, grades)
            recipe = recipe_with(shards, Path("unused"), additions, zero_stage=stage, micro_batch=micro_batch)
            training = prepare_pretraining(recipe, world)
            training.step.load(checkpoint)
            results[columns, grades] = gradients_of(training, world)
        return results


def one_process_reference(shards: Path, state, columns: str, grades: str):
    """The step with both terms written out plainly: all columns, all pairs of pairs."""
    recipe = recipe_with(shards, Path("unused"), additions_for(columns, grades))
    online, target = networks(recipe)
    batch, z = batches_and_noise(pretrain_recipe(shards, Path("unused")), STEP)[0]
    loss = loss_of(recipe, online, target, batch, z, STEP)
    loss = loss + more_columns(recipe, online, target, batch, z, state) + 0.8 * cosent(recipe, online, batch, z)
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in online.named_parameters()}


def represent(network, images, z, t: float):
    return network.encoder(images + t * z, torch.full((len(z),), t))


def more_columns(recipe, online, target, batch, z, state):
    """What the hard negatives add to the contrastive terms."""
    t_min = float(grid(recipe.noise, grid_points(STEP, recipe.training.steps, recipe.noise))[-1])
    views = [apply_photometric(batch.view_a, batch.photometric_a), apply_photometric(batch.view_b, batch.photometric_b)]
    queries = [F.normalize(online.projector(represent(online, view, z, t_min)), dim=1) for view in views]
    with torch.no_grad():
        keys = [F.normalize(target.projector(represent(target, view, z, t_min)), dim=1) for view in views]
    ids, bank = batch.sample_ids, state["bank"].clone()
    means = F.normalize(keys[0] + keys[1], dim=1)
    bank[ids] = means
    negative_ids = state["assigned"][ids].long()
    negatives = bank[negative_ids.flatten().clamp(min=0)]
    banned = (negative_ids.flatten() < 0) | (negative_ids.flatten() == ids[:, None])
    banned = banned | (means @ negatives.T >= GUARD["of_agreement"] * (keys[0] * keys[1]).sum(dim=1, keepdim=True))
    if recipe.additions.hard_negatives.columns == "own":
        banned = banned | ~torch.eye(len(ids), dtype=torch.bool).repeat_interleave(negative_ids.shape[1], dim=1)
    loss = torch.zeros(())
    for query, others in ((queries[0], keys[1]), (queries[1], keys[0])):
        logits = query @ others.T / recipe.temperature
        extra = (query @ negatives.T / recipe.temperature).masked_fill(banned, -torch.inf)
        loss = loss + (torch.cat([logits, extra], dim=1).logsumexp(dim=1) - logits.logsumexp(dim=1)).mean()
    return loss


def cosent(recipe, online, batch, z):
    """Over all combinations of graded pairs, two by two."""
    levels = pretraining_levels(recipe, STEP, recipe.training.steps)
    low, high, middle = levels.t_min, levels.noisier, levels.less_noisy
    plain = batch.plain.float() / 127.5 - 1
    a = represent(online, apply_photometric(batch.view_a, batch.photometric_a), z, low)
    b = represent(online, apply_photometric(batch.view_b, batch.photometric_b), z, low)
    if recipe.additions.batch_balance.grades == "noise_gap":
        p, q = represent(online, plain, z, high), represent(online, plain, z, middle).detach()
        pairs = [
            (p, q, middle / high),
            (a, p, low / high),
            (b, p, low / high),
            (a, q, low / middle),
            (b, q, low / middle),
        ]
        scores = torch.cat([F.cosine_similarity(first, second) for first, second, _ in pairs]) / 0.3
        grades = torch.cat([torch.full((len(z),), grade, dtype=torch.float64) for _, _, grade in pairs])
    else:
        scores, grades = (
            F.cosine_similarity(a, b) / 0.3,
            torch.tensor([overlap(*boxes) for boxes in batch.crops.tolist()]),
        )
    higher = grades[:, None] > grades[None, :]
    return torch.log1p((scores[None, :] - scores[:, None])[higher].exp().sum())


def overlap(first, second) -> float:
    """Intersection over union, pixel by pixel."""

    def pixels(box):
        top, left, height, width = box
        return {(y, x) for y in range(top, top + height) for x in range(left, left + width)}

    return len(pixels(first) & pixels(second)) / len(pixels(first) | pixels(second))


@pytest.fixture(scope="module")
def one_process(digits, tmp_path_factory):
    """A checkpoint with a bank, and loss and gradients of the step that follows it, by columns and grades."""
    checkpoint = tmp_path_factory.mktemp("checkpoint")
    recipe = recipe_with(digits, Path("unused"), additions_for("own", "noise_gap"))
    state = filled_bank(digits, recipe)
    (checkpoint / "resume").mkdir()
    save_file(state, checkpoint / "resume" / f"{STATE}.safetensors")
    save_file(networks(recipe)[1].state_dict(), checkpoint / "target.safetensors")
    expected = {pair: one_process_reference(digits, state, *pair) for pair in {setting[:2] for setting in SETTINGS}}
    return checkpoint, expected


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [1, 2, pytest.param(3, marks=pytest.mark.exhaustive), 4])
def test_loss_and_gradients_are_those_of_one_process_on_the_whole_batch_with_all_columns(
    ranks, one_process, digits, tmp_path
):
    checkpoint, expected = one_process
    for results in run_ranks(step_gradients, ranks, tmp_path, digits, checkpoint):
        assert results.keys() == expected.keys()
        for setting, found in results.items():
            assert_same(found, expected[setting])


# --- resumption -------------------------------------------------------------------------------------------------------


def train_until(recipe, last_step: int | None, world: World) -> None:
    """A run that is asked to stop after `last_step`."""
    training = prepare_pretraining(recipe, world)
    deal = training.batches

    def watched(start: int):
        for step, batch in enumerate(deal(start), start=start):
            if step + 1 == last_step:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    object.__setattr__(training, "batches", watched)
    train(training, world)


def lives(*recipes_and_last_steps) -> None:
    """Runs one after the other in one process: nothing but the run folder goes from one to the next."""
    with join_world("cpu") as world:
        for recipe, last_step in recipes_and_last_steps:
            train_until(recipe, last_step, world)


def metrics_of(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in lines]


def state_of(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()
    files = sorted(checkpoint.rglob("*.safetensors"))
    return {f"{file.stem}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


@pytest.mark.slow
@pytest.mark.distributed
def test_a_run_goes_on_with_the_same_bits_on_as_many_ranks_and_to_rounding_on_others(digits, tmp_path):
    additions = {"hard_negatives": {**SECTION, "ranking": "kept", "guard": GUARD}, "batch_balance": {}}

    def recipe(name: str) -> PretrainConfig:
        return recipe_with(digits, tmp_path / name, additions, checkpoint_every=100)

    two = [(recipe("undisturbed"), None), (recipe("resumed"), 4), (recipe("resumed"), None), (recipe("elastic"), 4)]
    run_ranks(lives, 2, tmp_path / "two", *two)
    run_ranks(lives, 3, tmp_path / "three", (recipe("elastic"), None))
    undisturbed, resumed, elastic = (tmp_path / name for name in ("undisturbed", "resumed", "elastic"))
    assert metrics_of(resumed) == metrics_of(undisturbed)
    expected, found, other = state_of(undisturbed), state_of(resumed), state_of(elastic)
    assert found.keys() == expected.keys() >= {f"{STATE}/bank", f"{STATE}/ranking", f"{STATE}/tally"}
    assert all(found[name].equal(tensor) for name, tensor in expected.items())
    assert float(expected[f"{STATE}/tally"][2]) > 0, "nothing was ever replaced"
    for step, (one, two) in enumerate(zip(metrics_of(undisturbed), metrics_of(elastic), strict=True)):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5) if "loss" in one else True, step
    torch.testing.assert_close(other[f"{STATE}/bank"], expected[f"{STATE}/bank"], atol=1e-4, rtol=0)
    assert (other[f"{STATE}/assigned"] == expected[f"{STATE}/assigned"]).float().mean() > 0.99
