"""Between two lines of metrics, no part of a step reads a tensor's value: on a GPU the host would wait for it there."""

from pathlib import Path

import pytest
import torch
from tiny import pretrain_recipe

from benchmarks.host_syncs import host_reads, train_once
from rrcm_dist.distributed.world import join_world
from rrcm_dist.training.pretraining import prepare_pretraining
from rrcm_dist.training.watching.guard import Guard
from rrcm_dist.training.watching.metrics import Metrics
from rrcm_dist.training.watching.spikes import SpikeWatch
from rrcm_dist.training.watching.utilisation import DevicePeak

STEPS = 20


class Nowhere:
    """Takes the place of a run folder."""

    path = Path("unused")


def test_reads_are_found_where_there_are_any():
    losses = torch.rand(4)
    places = host_reads(lambda: (losses.sum().item(), losses[losses > 0.5]), steps=2)
    assert [place.rsplit("/")[-1] for place in places] == ["test_no_host_sync.py: <lambda>"]
    assert sum(places.values()) == 4, "two in each step"


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_a_steady_step_reads_nothing(stage, digits, tmp_path):
    """With all that may go along: cached gradients, clipping, an average, probe, guard, spike watch, metrics."""
    recipe = pretrain_recipe(digits, tmp_path, zero_stage=stage, micro_batch=12, steps=STEPS, averages=[0.99])
    with join_world("cpu") as world:
        training = prepare_pretraining(recipe, world)
        spikes = SpikeWatch(recipe.training, tmp_path, True, training.step.describe)
        guard = Guard(world, tmp_path, spikes)
        metrics = Metrics(recipe, Nowhere(), world, DevicePeak(1e9, "a test"), training.work)
        batches = enumerate(training.batches(0))

        def step() -> None:
            number, batch = next(batches)
            metrics.add(train_once(training.step, recipe, batch, number, guard))

        assert host_reads(step, steps=1) == {}
