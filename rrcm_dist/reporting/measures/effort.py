"""What the certificates cost: draws and time, per image and in total, and what stopping early saved."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rrcm_dist.reporting.certificates import Certificates

SECONDS_PER_HOUR = 3600


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
