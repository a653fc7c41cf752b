"""Noise of a training step and its level, drawn so that ranks do not change them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.distributed.world import World
from rrcm_dist.noise import grid
from rrcm_dist.random_streams import NormalStream, Purpose, numpy_generator
from rrcm_dist.schedules import grid_points


@dataclass(frozen=True)
class NoiseLevels:
    """Levels t of a pre-training step, the same for the whole global batch."""

    index: int
    """i: the drawn point of the step's grid, 0 the noisiest."""
    t_min: float
    noisier: float
    """t_i."""
    less_noisy: float
    """t_(i+1)."""


def pretraining_levels(recipe: PretrainConfig, step: int, total_steps: int) -> NoiseLevels:
    """The levels of a step; its index is drawn alike on every rank."""
    levels = grid(recipe.noise, grid_points(step, total_steps, recipe.noise))
    index = int(numpy_generator(Purpose.NOISE_LEVEL, recipe.seed, step).integers(len(levels) - 1))
    return NoiseLevels(index, float(levels[-1]), float(levels[index]), float(levels[index + 1]))


def training_noise(
    recipe: PretrainConfig | FinetuneConfig, world: World, step: int, shape: torch.Size, draw: int = 0
) -> Tensor:
    """Standard normal noise for this rank's rows of a step's global batch.

    Args:
        recipe: gives seed and number of streams.
        world: rank r of R holds streams [r·C/R, (r+1)·C/R).
        step: of training.
        shape: (rows, channels, height, width).
        draw: which of several independent draws for the same images.

    Returns:
        float32 tensor of `shape` on the world's device.
    """
    streams_here = recipe.data.streams // world.size
    first = world.rank * streams_here
    rows_each = shape[0] // streams_here
    return torch.cat(
        [
            NormalStream(world.device, Purpose.TRAINING_NOISE, recipe.seed, step, stream, draw).draw(
                rows_each, *shape[1:]
            )
            for stream in range(first, first + streams_here)
        ]
    )
