"""The target network and the kept averages follow the online weights, cut up over ranks or whole."""

from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from safetensors.torch import load_file
from tiny import finetune_recipe, pretrain_recipe

from rrcm_dist.distributed.world import World, join_world
from rrcm_dist.training.finetuning import prepare_finetuning
from rrcm_dist.training.loop import train
from rrcm_dist.training.pretraining import prepare_pretraining
from rrcm_dist.training.zero.averages import WARM_UP
from rrcm_dist.training.zero.parameters import is_cut, own_part, shape_of

STEPS = 4
RATES = (0.5, 0.999)
SETTINGS = [(1, 100_000), (2, 100_000), (3, 0), (3, 40), (3, 100_000)]
"""ZeRO stage, and from how many numbers on a parameter of stage 3 is cut: all, most, none of the tiny network."""


def targets(shards: Path):
    """By setting: whole target weights after some steps, and which share of them this rank holds between steps."""
    with join_world("cpu") as world:
        return {setting: few_steps(shards, world, *setting) for setting in SETTINGS}


def few_steps(shards: Path, world: World, stage: int, threshold: int):
    recipe = pretrain_recipe(
        shards, Path("unused"), steps=STEPS, zero_stage=stage, persistence_threshold=threshold, micro_batch=5
    )
    training = prepare_pretraining(recipe, world)
    for step, batch in enumerate(training.batches(0)):
        training.step.backward(batch, step)
        training.step.engine.update(1e-2, None)
        training.step.after_update(step)
    parameters = list(training.step._target._frozen.network.parameters())
    held = sum(own_part(p).numel() + (p.data.untyped_storage().nbytes() // 4 if is_cut(p) else 0) for p in parameters)
    return training.step._target.weights(), held / sum(shape_of(p).numel() for p in parameters)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [pytest.param(2, marks=pytest.mark.exhaustive), 3])
def test_the_target_is_the_same_at_every_stage_and_persistence_and_cut_where_it_should_be(ranks, digits, tmp_path):
    found = run_ranks(targets, ranks, tmp_path, digits)[0]
    whole, _ = found[1, 100_000]
    for (stage, threshold), (weights, share) in found.items():
        for name, expected in whole.items():
            torch.testing.assert_close(weights[name], expected, rtol=1e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")
        if (stage, threshold) == (3, 0):
            assert share < 1 / ranks + 0.05, "a rank holds more than its part"
        elif stage < 3:
            assert 0.95 < share < 1.05


def with_averages(shards: Path, output: Path, stage: int, kind: str):
    """Train with averages, noting every step's whole weights; what a plain loop over these makes of the averages."""
    recipe_of, prepare = (
        (pretrain_recipe, prepare_pretraining) if kind == "online" else (finetune_recipe, prepare_finetuning)
    )
    with join_world("cpu") as world:
        recipe = recipe_of(shards, output, steps=STEPS, zero_stage=stage, averages=RATES, persistence_threshold=40)
        training = prepare(recipe, world)
        followed = {rate: training.step.engine.weights() for rate in RATES}
        update = training.step.averages.update

        def noting(step: int) -> None:
            update(step)
            now = training.step.engine.weights()
            for rate, average in followed.items():
                rate_now = min(rate, (1 + step) / (WARM_UP + step))
                for name, value in now.items():
                    is_buffer = "running" in name or "num_batches" in name
                    average[name] = value if is_buffer else rate_now * average[name] + (1 - rate_now) * value

        training.step.averages.update = noting  # type: ignore[method-assign]
        checkpoint = train(training, world).checkpoint
        return followed, training.step.engine.weights(), checkpoint


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(("stage", "kind"), [(1, "model"), (3, "online")])
def test_averages_are_kept_whole_in_checkpoints_and_leave_the_weights_alone(stage, kind, digits, tmp_path):
    averages, weights, checkpoint = run_ranks(with_averages, 2, tmp_path, digits, tmp_path / "run", stage, kind)[0]
    for name, value in load_file(checkpoint / f"{kind}.safetensors").items():
        assert value.equal(weights[name]), f"{name} is not what it was before it was lent to an average"
    for rate in RATES:
        kept = load_file(checkpoint / f"average-{rate:g}.safetensors")
        assert kept.keys() == averages[rate].keys()
        for name, expected in averages[rate].items():
            if expected.is_floating_point():
                torch.testing.assert_close(
                    kept[name], expected, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
                )
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert all(f'"average-{rate:g}/' in metrics for rate in RATES)
