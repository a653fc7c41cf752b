"""What a step sends is what `--dry-run` says."""

from pathlib import Path

import pytest
from ranks import run_ranks
from tiny import pretrain_recipe

from benchmarks.payloads import Payloads, sent_by_rings
from benchmarks.training_ranks import random_batch
from rrcm_dist.config.communication import sent_bytes
from rrcm_dist.config.parts import ProbeConfig
from rrcm_dist.distributed.world import join_world
from rrcm_dist.training.pretraining_step import PretrainingStep

RANKS = 2
SETTINGS = [(1, None, False), (2, 4, False), (3, 4, False), (3, 4, True)]
"""ZeRO stage, micro-batch, activation checkpointing."""


def recipe_of(stage, micro_batch, checkpointing):
    recipe = pretrain_recipe(
        Path("unused"),
        Path("unused"),
        zero_stage=stage,
        micro_batch=micro_batch,
        activation_checkpointing=checkpointing,
    )
    encoder = recipe.encoder.model_copy(update={"width": 64, "depth": 3})  # weights large beside DeepSpeed's notes
    return recipe.model_copy(update={"encoder": encoder, "probe": ProbeConfig(on=False)})


def bytes_given_to_collectives():
    with join_world("cpu") as world:
        sent = []
        for setting in SETTINGS:
            recipe = recipe_of(*setting)
            step = PretrainingStep(recipe, 100, world)
            batch = random_batch(recipe.training.batch // world.size, recipe.encoder.image_size, world.rank)
            for k in range(2):
                with Payloads() as payloads:  # of the second step: the first one sets up
                    step.backward(batch, k)
                    step.engine.update(1e-3, 2.0)
                    step.after_update(k)
            sent.append(sent_by_rings(payloads.sizes, world.size))
        return sent


@pytest.mark.slow
def test_the_bytes_of_a_step_are_the_computed_ones(tmp_path):
    counted = run_ranks(bytes_given_to_collectives, RANKS, tmp_path)[0]
    computed = [sum(sent_bytes(recipe_of(*setting), RANKS).values()) for setting in SETTINGS]
    assert counted == pytest.approx(computed, rel=0.03)
