"""What changes with the step: learning rate, grid points, target rate. Pure functions; step counts finished updates."""

import math

from rrcm_dist.config.parts import NoiseConfig, TargetConfig


def learning_rate(step: int, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Linear from 0 to `peak` over `warmup_steps`, then a cosine to 0 at `total_steps`."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    if step >= total_steps:
        return 0.0
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (total_steps - warmup_steps)))


def grid_points(step: int, total_steps: int, noise: NoiseConfig) -> int:
    """N(k), points of the noise grid: doubling as in improved consistency training (Song & Dhariwal 2024).

    K' = ceil(K / log2(ceil(s1/s0) + 1)), N(k) = min(s0 · 2^ceil(k/K'), s1) + 1: 21 at k = 0 only, then 41, then 81.
    """
    s0, s1 = noise.levels_start, noise.levels_end
    period = math.ceil(total_steps / math.log2(math.ceil(s1 / s0) + 1))
    return min(s0 * 2 ** math.ceil(step / period), s1) + 1


def target_rate(step: int, total_steps: int, target: TargetConfig) -> float:
    """Rate of the exponential average, from `start` to `end` by a sigmoid of a square-root ramp of the step."""
    if target.schedule == "constant":
        return target.start
    start, end = target.start, target.end
    if start == end:
        return start
    done = min(step / total_steps, 1.0)
    ramp = math.sqrt(done * (end**2 - start**2) + start**2)
    weight = 2 / (1 + math.exp(-target.sharpness * (ramp - start) / (end - start))) - 1
    return weight * end + (1 - weight) * start
