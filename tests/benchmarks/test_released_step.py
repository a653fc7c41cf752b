"""The peer that our pre-training step is measured beside computes the same loss from the same inputs."""

from pathlib import Path

import torch
from tiny import pretrain_recipe

from benchmarks.released_data import image_files, released_batches
from benchmarks.released_step import ReleasedStep
from benchmarks.steps import TOTAL_STEPS, ready_batch
from rrcm_dist.data.index import load_index
from rrcm_dist.distributed.world import join_world
from rrcm_dist.models.rrcm import PretrainingNetwork
from rrcm_dist.training.noise_draws import pretraining_levels, training_noise
from rrcm_dist.training.pretraining_step import PretrainingStep

CPU = torch.device("cpu")


def test_the_released_step_has_our_loss_at_the_first_step():
    recipe = pretrain_recipe(Path("unused"), Path("unused"))
    batch, levels = ready_batch(recipe), pretraining_levels(recipe, 1, TOTAL_STEPS)
    with join_world("cpu") as world:
        z = training_noise(recipe, world, 1, batch.plain.shape)
        ours = float(PretrainingStep(recipe, TOTAL_STEPS, world).backward(batch, 1)["loss"].detach())
    network = PretrainingNetwork(recipe.encoder, recipe.projector, recipe.noise, recipe.seed)
    released = ReleasedStep(recipe, network.state_dict(), CPU)
    x, a, b = (view.float() / 127.5 - 1 for view in (batch.plain, batch.view_a, batch.view_b))
    first, second = (released(x, a, b, (levels.t_min, levels.noisier, levels.less_noisy), z) for _ in range(2))
    assert abs(first / ours - 1) < 1e-4
    assert second < first, "the update did not move towards a lower loss of the same batch"


def test_the_released_data_path_gives_three_views_of_all_samples(digits, tmp_path):
    files = image_files(str(digits / "train"), tmp_path)
    assert len(files) == sum(shard.samples for shard in load_index(str(digits / "train")).shards)
    views = next(released_batches(files[:8], 16, 4, 0, CPU))
    for view in views:
        assert view.shape == (4, 3, 16, 16)
        assert view.dtype == torch.float32
        assert -1 <= view.min() < view.max() <= 1
