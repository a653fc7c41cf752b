"""What the certificates cost: draws and time, per image and in total, and what stopping early saved."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rrcm_dist.reporting.certificates import Certificates

SECONDS_PER_HOUR = 3600
FACTORS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7))
"""What round counts are of powers of ten, from coarse to fine."""
FEWEST_TICKS = 3


@dataclass(frozen=True)
class Effort:
    """The cost of one run at one σ, over the images for which it is known; NaN where it is for none.

    Attributes:
        mean_draws, median_draws, most_draws: Draws spent on an image, selection included.
        total_draws: Their sum.
        fixed_draws: What every image would have cost with fixed n, selection included.
        median_seconds, mean_seconds: Time one worker spent on an image.
        hours: Their sum in hours of one worker: GPU-hours where the draws were made on GPUs.
        device: "cuda", "cpu", or "" where not known.
    """

    mean_draws: float
    median_draws: float
    most_draws: float
    total_draws: float
    fixed_draws: float
    median_seconds: float
    mean_seconds: float
    hours: float
    device: str

    @property
    def saving(self) -> float:
        """How many times fewer draws than with fixed n; 1 where n was fixed, NaN where draws are not known."""
        return self.fixed_draws / self.mean_draws

    @property
    def hours_name(self) -> str:
        """'GPU-hours', 'worker-hours' (on CPUs), or 'hours' where the device is not known."""
        return {"cuda": "GPU-hours", "cpu": "worker-hours"}.get(self.device, "hours")


def effort(run: Certificates) -> Effort:
    """What the certificates of `run` cost."""
    draws, seconds = _known(run.draws), _known(run.seconds)
    fixed = run.provenance.fixed_draws
    return Effort(
        mean_draws=_or_nan(np.mean, draws),
        median_draws=_or_nan(np.median, draws),
        most_draws=_or_nan(np.max, draws),
        total_draws=_or_nan(np.sum, draws),
        fixed_draws=math.nan if fixed is None else float(fixed),
        median_seconds=_or_nan(np.median, seconds),
        mean_seconds=_or_nan(np.mean, seconds),
        hours=_or_nan(np.sum, seconds) / SECONDS_PER_HOUR,
        device=run.provenance.device,
    )


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]


def _or_nan(measure: Callable[[NDArray[np.float64]], np.floating], values: NDArray[np.float64]) -> float:
    return float(measure(values)) if len(values) else math.nan


def draws_vary(run: Certificates) -> bool:
    """Whether some images took more draws than others."""
    draws = _known(run.draws)
    return len(draws) > 0 and bool(draws.min() < draws.max())


def round_counts(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`, both above 0, for a logarithmic axis: at least three where there are some."""
    counts: list[float] = []
    for factors in FACTORS:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        counts = [factor * 10.0**k for k in powers for factor in factors if low <= factor * 10.0**k <= high]
        if len(counts) >= FEWEST_TICKS:
            return counts
    step = 10.0 ** math.floor(math.log10(max((high - low) / FEWEST_TICKS, 1)))
    step *= max(factor for factor in (1, 2, 5) if factor * step <= max((high - low) / FEWEST_TICKS, step))
    return [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
