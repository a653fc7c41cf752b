"""Noise levels: the EDM grid, the input scaling, the time condition (Karras et al. 2022; rRCM, Lei et al. 2025).

t is the standard deviation of noise on [-1, 1] pixels; σ, on [0, 1] pixels, is half of it.
"""

import math

import numpy as np
import torch
from torch import Tensor

from rrcm_dist.config.parts import NoiseConfig


def noise_level(sigma: float) -> float:
    """t on [-1, 1] pixels of σ on [0, 1] pixels."""
    return 2.0 * sigma


def grid(noise: NoiseConfig, points: int) -> np.ndarray:
    """The EDM grid, noisiest first: float64 (points,), from t_max down to t_min (EDM eq. 5).

    t_i = (t_max^(1/ρ) + i/(N-1) · (t_min^(1/ρ) - t_max^(1/ρ)))^ρ, i = 0 … N-1.
    """
    if points < 2:
        raise ValueError(f"a grid has at least 2 points, not {points}")
    share = np.arange(points, dtype=np.float64) / (points - 1)
    start, end = noise.t_max ** (1 / noise.rho), noise.t_min ** (1 / noise.rho)
    return (start + share * (end - start)) ** noise.rho


def nearest_grid_point(noise: NoiseConfig, points: int, t: float) -> tuple[int, float]:
    """Index and value of the grid point nearest to t; fine-tuning and certification condition on it."""
    levels = grid(noise, points)
    index = int(np.abs(levels - t).argmin())
    return index, float(levels[index])


def conditioning_level(noise: NoiseConfig, sigma: float) -> float:
    """The noise level on which a classifier for σ is conditioned: nearest to t = 2σ on the final grid.

    σ = 0 (clean images) is conditioned on t_min, the last grid point.
    """
    return nearest_grid_point(noise, noise.levels_end + 1, noise_level(sigma))[1]


def input_scale(t: Tensor, sigma_data: float) -> Tensor:
    """c_in = 1 / sqrt(t² + σ_data²), same shape as t (EDM table 1)."""
    return torch.rsqrt(t.square() + sigma_data**2)


def time_condition(t: Tensor) -> Tensor:
    """250 · ln(t + 1e-44), same shape as t."""
    return 250.0 * torch.log(t + 1e-44)


def sinusoidal_embedding(condition: Tensor, width: int, max_period: float = 10000.0) -> Tensor:
    """(N,) float32 conditions → (N, width) float32: cosines first, then sines."""
    half = width // 2
    exponent = torch.arange(half, dtype=torch.float32, device=condition.device) / half
    angles = condition.float()[:, None] * torch.exp(-math.log(max_period) * exponent)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
