"""Images under evaluation: which of a dataset, their noise, and what a network makes of them."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rrcm_dist.config.parts import NoiseConfig
from rrcm_dist.models.rrcm import autocast
from rrcm_dist.noise import conditioning_level, noise_level
from rrcm_dist.random_streams import NormalStream, Purpose

EVALUATION_BATCH = 256

Outputs = Callable[[Tensor], Tensor]
"""Noisy [-1, 1] images (n, 3, H, W) → (n, …) of any dtype."""


def evenly_spaced(samples: int, count: int) -> np.ndarray:
    """`count` of `samples` ids, int64, from the first to the last, evenly spaced; all where there are not as many."""
    return np.unique(np.linspace(0, samples - 1, min(count, samples)).round().astype(np.int64))


def noisy_images(pixels: Tensor, sample_ids: Sequence[int], sigma: float, seed: int, device: torch.device) -> Tensor:
    """uint8 (n, 3, H, W) → float32 [-1, 1] images plus noise σ on the device.

    The noise of an image depends on seed, image and σ alone.
    """
    images = pixels.to(device).float().div_(127.5).sub_(1)
    if sigma > 0:
        streams = [NormalStream(device, Purpose.EVALUATION_NOISE, seed, int(i), float(sigma)) for i in sample_ids]
        images.add_(torch.stack([stream.draw(*pixels.shape[1:]) for stream in streams]), alpha=noise_level(sigma))
    return images


def conditioned(network: nn.Module, noise: NoiseConfig, sigma: float, precision: str) -> Outputs:
    """What a network of noisy images and levels t makes of images under noise σ, conditioned on σ's grid point."""
    level = conditioning_level(noise, sigma)

    def compute(noisy: Tensor) -> Tensor:
        t = torch.full((len(noisy),), level, device=noisy.device)
        with autocast(precision, noisy.device):
            return network(noisy, t)

    return compute
