"""Noise of a training step, drawn canonical stream by canonical stream, so that ranks do not change it."""

import torch
from torch import Tensor

from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.distributed.world import World
from rrcm_dist.random_streams import NormalStream, Purpose


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
