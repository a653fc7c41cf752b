"""When an image has had draws enough: every radius of the grid decided, or further draws not worth it.

Whatever is decided here, the certificate stands: the bound holds at every look at once (`confidence_sequence`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from rrcm_dist.certification.statistics.bounds import certified_radius
from rrcm_dist.certification.statistics.confidence_sequence import refutes

HORIZON_GROWTH = 1.15
"""Ratio of neighbouring numbers of draws at which the backward induction decides."""
FIRST_HORIZON = 10
POINTS_PER_DEVIATION = 4
"""Grid points of the observed angle per standard deviation of it."""
QUADRATURE = ndtri((np.arange(9) + 0.5) / 9)
QUADRATURE /= QUADRATURE.std()


@dataclass(frozen=True, eq=False)
class AdaptiveRule:
    """Stops one image at one σ. `finished` depends on the counts alone, so that any restart decides alike.

    An image goes on while the radii that it may still be expected to have certified are worth the draws that takes, at
    `draws_per_radius` draws each. That is optimal stopping by backward induction, from n downwards, over numbers of
    draws that grow by 15 %. In the angle θ = arcsin √(share of failures) what will be seen after t' draws is, after t
    draws and with no prior knowledge, normal around what is seen now, of variance (1/t - 1/t')/4.
    """

    n: int
    """The most estimation draws."""
    levels: NDArray[np.float64]
    """Bounds at which the radii within reach of n draws are certified, ascending: (radii,)."""
    horizons: NDArray[np.int64]
    """Numbers of draws at which `worth` decides, ascending up to n: (horizons,)."""
    steps: NDArray[np.float64]
    """Distance of the angles of each horizon, which start at 0: (horizons,)."""
    starts: NDArray[np.int64]
    """Where the angles of each horizon start in `worth`: (horizons,)."""
    worth: NDArray[np.bool_]
    """Whether to go on with so many radii certified already, at each horizon's angles: (radii + 1, angles)."""

    @classmethod
    def of(cls, sigma: float, radii: ArrayLike, n: int, alpha: float, draws_per_radius: float) -> "AdaptiveRule":
        """The rule for ℓ2 radii on [0, 1] pixels, in any order; those that n draws cannot reach are left out."""
        horizons = _horizons(n)
        levels = _levels(np.unique(np.asarray(radii, dtype=np.float64)), sigma)
        allowed = horizons - _needed(levels, horizons, alpha)
        reachable = allowed[:, -1] >= 0
        steps = 0.5 / np.sqrt(horizons) / POINTS_PER_DEVIATION
        worth = _induction(horizons, steps, allowed[reachable], draws_per_radius)
        starts = np.cumsum([0, *(table.shape[1] for table in worth[:-1])])
        return cls(n, levels[reachable], horizons, steps, starts, np.concatenate(worth, axis=1))

    def finished(self, successes: ArrayLike, trials: ArrayLike, lower: ArrayLike) -> NDArray[np.bool_]:
        """Whether images with these counts and running lower bounds need no further draw; shapes broadcast.

        `trials` are at least 1.
        """
        k, n, bound = np.broadcast_arrays(*(np.asarray(array) for array in (successes, trials, lower)))
        certified = np.searchsorted(self.levels, bound, side="right")
        horizon = np.maximum(np.searchsorted(self.horizons, n, side="right") - 1, 0)
        angle = _angle(n - k, n)
        last = np.append(self.starts[1:], self.worth.shape[1]) - 1
        place = np.minimum(self.starts[horizon] + np.rint(angle / self.steps[horizon]).astype(np.int64), last[horizon])
        return (certified == self.levels.size) | (n >= self.n) | ~self.worth[certified, place]

    def reason(self, trials: int, lower: float) -> str:
        """Why a finished image had no further draw: "decided", "all n draws" or "futile"."""
        if not self.levels.size or lower >= self.levels[-1]:
            return "decided"
        return "all n draws" if trials >= self.n else "futile"


def block_sizes(n: int, first_block: int, growth: float, block: int) -> list[int]:
    """Draws of the estimation blocks: the i-th has first_block · (1 + growth)^i, at most `block`; they sum to n.

    Whole numbers throughout, so that every machine cuts alike: the growth is taken in ten-thousandths, and every block
    is that share, rounded, longer than the one before.
    """
    share = round(growth * 10_000)
    sizes: list[int] = []
    left, size = n, min(first_block, block)
    while left > 0:
        sizes.append(min(size, left))
        left -= sizes[-1]
        size = min(size + (size * share + 5_000) // 10_000, block)
    return sizes


def _levels(radii: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """The least bounds, to a few units in the last place, whose certified radius is at least `radii`."""
    levels = ndtr(radii / sigma)
    for units in 2.0 ** np.arange(50):
        short = (certified_radius(levels, sigma) < radii) & (levels < 1.0)
        if not short.any():
            break
        levels = np.where(short, np.minimum(levels + units * np.finfo(np.float64).epsneg, 1.0), levels)
    return levels


def _horizons(n: int) -> NDArray[np.int64]:
    steps = max(int(np.log(n / FIRST_HORIZON) / np.log(HORIZON_GROWTH)), 0)
    return np.unique(np.rint(n * HORIZON_GROWTH ** -np.arange(steps + 1.0)).astype(np.int64))


def _needed(levels: NDArray[np.float64], horizons: NDArray[np.int64], alpha: float) -> NDArray[np.int64]:
    """Least successes that certify each level at each horizon, by bisection; one more than the draws where none do."""
    low = np.zeros((levels.size, horizons.size), dtype=np.int64)
    high = np.broadcast_to(horizons + 1, low.shape).copy()
    p0 = np.minimum(levels, 1 - np.finfo(np.float64).epsneg)[:, None]
    while (low < high).any():
        middle = (low + high) // 2
        enough = (middle > horizons) | refutes(np.minimum(middle, horizons), horizons, p0, alpha)
        high = np.where(enough, middle, high)
        low = np.where(enough, low, np.minimum(middle + 1, high))
    return np.where(levels[:, None] < 1.0, high, horizons + 1)


def _angle(failures: NDArray[np.integer], trials: NDArray[np.integer]) -> NDArray[np.float64]:
    """arcsin √(share of failures) with Anscombe's correction (Biometrika 35, 1948): variance 1/(4t), nearly normal."""
    return np.arcsin(np.sqrt((failures + 0.375) / (trials + 0.75)))


def _induction(
    horizons: NDArray[np.int64], steps: NDArray[np.float64], allowed: NDArray[np.int64], draws_per_radius: float
) -> list[NDArray[np.bool_]]:
    """Whether going on is worth it, for each horizon: (radii + 1, angles). `allowed` failures: (radii, horizons)."""
    counts = np.arange(len(allowed) + 1)
    worth: list[NDArray[np.bool_]] = []
    value_next = angles_next = np.empty(0)
    for h in range(len(horizons) - 1, -1, -1):
        t = horizons[h]
        angles = np.arange(0.0, np.pi / 2, steps[h])
        failures = (t + 0.75) * np.sin(angles) ** 2 - 0.375
        now = (failures[:, None] <= allowed[:, h] + 0.5).sum(axis=-1)
        certified = np.maximum(counts[:, None], now)
        if not worth:
            going_on = np.full(certified.shape, -1.0)
        else:
            deviation = 0.5 * np.sqrt(1.0 / t - 1.0 / horizons[h + 1])
            ahead = np.abs(angles[:, None] + deviation * QUADRATURE)
            mean = np.array([np.interp(ahead, angles_next, row).mean(axis=-1) for row in value_next])
            going_on = np.take_along_axis(mean, certified, axis=0) - (horizons[h + 1] - t) / draws_per_radius
        value_next, angles_next = np.maximum(going_on, certified), angles
        worth.append(value_next > counts[:, None])
    return worth[::-1]
