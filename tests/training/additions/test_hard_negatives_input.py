"""What cannot be is refused before anything is trained; what it takes is told beforehand."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from tiny import pretrain_recipe

from benchmarks.hard_negatives import ARMS, RECIPE
from benchmarks.host_syncs import host_reads
from rrcm_dist.config.describe import describe
from rrcm_dist.config.hard_negatives import HardNegativesConfig
from rrcm_dist.config.load import load_recipe
from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.distributed.world import join_world
from rrcm_dist.errors import InvalidInput
from rrcm_dist.training.additions import room
from rrcm_dist.training.additions.hard_negatives import STATE, HardNegativesAddition
from rrcm_dist.training.pretraining import prepare_pretraining
from rrcm_dist.training.stages import stages_of

SAMPLES = 1437
"""Of the training shards."""


def recipe_with(shards: Path, **section) -> PretrainConfig:
    recipe = pretrain_recipe(shards, Path("unused"))
    return PretrainConfig.model_validate(
        recipe.model_dump() | {"additions": {"hard_negatives": {"start": 2, "interval": 3, **section}}}
    )


def refused(recipe: PretrainConfig) -> str:
    with join_world("cpu") as world, pytest.raises(InvalidInput) as error:
        next(stages_of(recipe, world))
    return str(error.value)


def test_a_bank_larger_than_memory_is_refused_with_its_size(digits, monkeypatch):
    monkeypatch.setattr(room, "available_bytes", lambda device: 100_000)
    told = refused(recipe_with(digits))
    for part in ("bank of additions.hard_negatives", "155.3 kB per rank", "100.0 kB free", "fp16", "more ranks"):
        assert part in told


def test_negatives_fewer_than_asked_are_refused_with_what_was_asked_for(digits):
    told = refused(recipe_with(digits, count=200))
    assert "down to rank 1887 (287 skipped, then 8 windows of 200) among 1437 samples" in told
    assert "lower count" in told


def test_a_pool_larger_than_the_dataset_is_refused(digits):
    assert "pool 5000 is more than the 1437 samples" in refused(recipe_with(digits, pool=5000))


def test_negatives_that_would_begin_after_the_end_are_refused(digits):
    told = refused(recipe_with(digits, start=None))
    assert "begin after 59 steps, and the run has 8" in told
    assert "additions.hard_negatives.start" in told


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"mode": "static", "ranking": "kept"}, "mode dynamic alone"),
        ({"ranking": "kept", "window": "first"}, "always take the same negatives"),
        ({"mode": "random", "pool": 100}, "draws from all samples"),
        ({"mode": "static", "factor": 1.2, "past_last": "stay"}, "static does not read factor, past_last"),
        ({"mode": "static", "window": "first"}, "static does not read window"),
        ({"mode": "random", "interval": 50, "skip": 3}, "random does not read interval, skip"),
        ({"mode": "random", "guard": {"skip_share": 0.1}}, r"random does not read guard\.skip_share"),
        ({"guard": {"on": False, "ceiling": 0.9, "skip_share": 0.1}}, "ceiling, skip_share decides nothing"),
        ({"pool": 50}, "down to rank 74"),
        ({"pool": 100, "guard": {"skip_share": 0.5}}, "down to rank 114"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(section, told):
    with pytest.raises(ValidationError, match=told):
        HardNegativesConfig(**section)


@pytest.mark.parametrize("mode", ["dynamic", "static", "random"])
def test_a_stored_recipe_that_gives_every_setting_loads(mode):
    config = HardNegativesConfig(mode=mode, guard={"ceiling": 0.9})
    assert HardNegativesConfig.model_validate(config.model_dump()) == config


@pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS)
def test_every_arm_of_the_benchmark_is_a_recipe(arm):
    load_recipe(RECIPE, arm, kind="pretrain")


def test_a_checkpoint_with_other_numbers_of_negatives_is_refused(digits, tmp_path):
    recipe = recipe_with(digits, count=4)
    (tmp_path / "resume").mkdir()
    with join_world("cpu") as world:
        state = HardNegativesAddition(recipe_with(digits, count=2), 8, world).resume_state()[STATE]
        save_file(state, tmp_path / "resume" / f"{STATE}.safetensors")
        with pytest.raises(InvalidInput, match=r"assigned is \(1437, 2\) there and \(1437, 4\) here"):
            HardNegativesAddition(recipe, 8, world).load(tmp_path)


def test_a_checkpoint_from_before_the_addition_leaves_the_bank_empty(digits, tmp_path):
    with join_world("cpu") as world:
        addition = HardNegativesAddition(recipe_with(digits), 8, world)
        addition.load(tmp_path)
        assert not addition.resume_state()[STATE]["bank"].any()


def test_a_dry_run_tells_the_size_of_the_bank_per_gpu(digits):
    config = recipe_with(digits).additions.hard_negatives
    assert config.bank_bytes(SAMPLES, 16, 4) == (360 + 1) * (16 * 4 + 4 * (3 + 8))
    told = describe(recipe_with(digits), 4, "A800", SAMPLES)
    assert "Hard negatives, memory per GPU on 4 A800" in told
    assert "39.0 kB" in told
    assert "beside 24 keys" in next(line for line in told.splitlines() if "  192  " in line)
    assert "27.0 MB per million images" in describe(recipe_with(digits), 4, "A800", None)


def test_the_bank_holds_what_was_told(digits):
    with join_world("cpu") as world:
        state = HardNegativesAddition(recipe_with(digits, ranking="kept"), 8, world).resume_state()[STATE]
    held = sum(table.nbytes for name, table in state.items() if name != "tally")
    config = recipe_with(digits, ranking="kept").additions.hard_negatives
    assert held == config.bank_bytes(SAMPLES - 1, 16, 1)


def test_a_steady_step_with_both_additions_has_the_host_wait_for_nothing(digits, tmp_path):
    additions = {"hard_negatives": {"start": 0, "interval": 1000}, "batch_balance": {}}
    for grades in ("noise_gap", "crop_overlap"):
        additions["batch_balance"] = {"grades": grades}
        recipe = pretrain_recipe(digits, tmp_path)
        recipe = PretrainConfig.model_validate(recipe.model_dump() | {"additions": additions})
        with join_world("cpu") as world:
            training = prepare_pretraining(recipe, world)
            batches = enumerate(training.batches(0))

            def step(training=training, batches=batches) -> None:
                number, batch = next(batches)
                training.step.backward(batch, number)

            step()  # looks at all negatives, and may read
            assert host_reads(step, steps=2) == {}
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("base", ["cifar10/pretrain-b", "imagenet/pretrain-b"])
def test_a_recipe_with_hard_negatives_differs_from_its_base_in_these_alone(base):
    plain, mined = load_recipe(base, kind="pretrain"), load_recipe(f"{base}-hard-negatives", kind="pretrain")
    assert mined.additions.hard_negatives is not None
    as_base = {"name": plain.name, "output": plain.output, "additions": plain.additions}
    assert mined.model_copy(update=as_base) == plain
