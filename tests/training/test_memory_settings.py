"""Activation checkpointing and compilation change speed and memory, and nothing else."""

from pathlib import Path

import pytest
import torch
from gradients import assert_same, gradients_of, one_process_reference
from plain_pretraining import plain_run
from ranks import run_ranks
from test_trajectory import pretraining, run_folder
from tiny import finetune_recipe, pretrain_recipe
from trajectories import EPS_AND_LR, assert_same_run, train_with

from rrcm_dist.config.parts import EncoderConfig
from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.distributed.world import join_world
from rrcm_dist.models.encoder import Encoder, run_blocks
from rrcm_dist.training.finetuning import prepare_finetuning
from rrcm_dist.training.pretraining import prepare_pretraining

UNUSED = Path("unused")
CHECKPOINTED = [(0, None, 100_000), (1, 5, 100_000), (2, 5, 100_000), (3, None, 100_000), (3, 5, 0)]
"""ZeRO stage, micro-batch and persistence threshold."""
ENCODER = EncoderConfig(image_size=32, patch=4, width=64, depth=6, heads=4)


def checkpointed_gradients(shards: Path):
    with join_world("cpu") as world:
        results = []
        for stage, micro_batch, threshold in CHECKPOINTED:
            training = {"zero_stage": stage, "micro_batch": micro_batch, "persistence_threshold": threshold}
            recipe = pretrain_recipe(shards, UNUSED, activation_checkpointing=True, **training)
            results.append(gradients_of(prepare_pretraining(recipe, world), world))
        return results


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [1, 2])
def test_checkpointing_leaves_loss_and_gradients_as_they_are(ranks, digits, tmp_path):
    expected = one_process_reference(digits)
    for results in run_ranks(checkpointed_gradients, ranks, tmp_path, digits):
        for found in results:
            assert_same(found, expected)


def finetuning_gradients(shards: Path):
    with join_world("cpu") as world:
        results = []
        for stage, checkpointing in [(1, False), (1, True), (3, True)]:
            training = {"zero_stage": stage, "micro_batch": 5, "activation_checkpointing": checkpointing}
            recipe = finetune_recipe(shards, UNUSED, **training)
            results.append(gradients_of(prepare_finetuning(recipe, world), world))
        return results


@pytest.mark.distributed
def test_checkpointing_leaves_fine_tuning_as_it_is(digits, tmp_path):
    expected, *results = run_ranks(finetuning_gradients, 1, tmp_path, digits)[0]
    for found in results:
        assert_same(found, expected)


def checkpointed_runs(shards: Path, folder: Path):
    with join_world("cpu") as world:
        for kind, (eps, _) in EPS_AND_LR.items():
            output = run_folder(folder, kind, 3, 5)
            recipe = pretraining(shards, output, kind, zero_stage=3, micro_batch=5, activation_checkpointing=True)
            train_with(eps, prepare_pretraining(recipe, world), world)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_checkpointed_run_goes_where_the_plain_one_goes(ranks, digits, tmp_path):
    run_ranks(checkpointed_runs, ranks, tmp_path, digits, tmp_path)
    for kind, (eps, _) in EPS_AND_LR.items():
        plain = plain_run(pretraining(digits, UNUSED, kind), eps)
        assert_same_run(run_folder(tmp_path, kind, 3, 5), plain, kind)


def kept_bytes(checkpointing: bool) -> int:
    """Distinct memory that an encoder's forward keeps for the backward pass, its parameters aside."""
    encoder = Encoder(ENCODER, 0.5)
    run_blocks(encoder, checkpointing, compiled=False)
    own = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encoder(torch.randn(8, 3, 32, 32), torch.ones(8))
    return sum(storage.nbytes() for storage in kept.values())


def test_checkpointing_keeps_a_fraction_of_the_activations():
    """A block keeps 12 widths per token without it and one with it; the hook does not see what checkpoints hold, which
    is each block's input."""
    inputs = ENCODER.depth * 8 * 66 * ENCODER.width * 4
    assert kept_bytes(True) + inputs < 0.3 * kept_bytes(False)


def compiled_gradients(shards: Path):
    with join_world("cpu") as world:
        recipe = pretrain_recipe(shards, UNUSED, zero_stage=1, compile=True)
        return gradients_of(prepare_pretraining(recipe, world), world)


@pytest.mark.slow
@pytest.mark.distributed
def test_compilation_leaves_loss_and_gradients_as_they_are(digits, tmp_path):
    assert_same(run_ranks(compiled_gradients, 1, tmp_path, digits)[0], one_process_reference(digits))


def test_compilation_at_zero_stage_3_is_refused_in_words():
    with pytest.raises(ValueError, match=r"training\.compile does not go with training\.zero_stage 3"):
        pretrain_recipe(UNUSED, UNUSED, compile=True, zero_stage=3)
    assert isinstance(pretrain_recipe(UNUSED, UNUSED, compile=True, zero_stage=2), PretrainConfig)
