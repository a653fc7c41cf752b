"""How sure the smoothed classifier is: the distribution over images of p_A, the probability of the class chosen.

On the axis Φ⁻¹(p) the certified radius is a straight line, R = σ Φ⁻¹(p) (Cohen et al. 2019, theorem 1).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from rrcm_dist.reporting.certificates import Certificates

TICKS = (0.5, 0.7, 0.9, 0.97, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
"""Where an axis of probabilities may be labelled."""
NEAREST = 1e-7
"""As near to 1 as a p_A is drawn where the draws are not known."""


def share_above(run: Certificates) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Φ⁻¹(p), float64 (P,), ascending from 0, and the share of all images with p_A ≥ p, float64 (P,).

    Images whose p_A is not known, or below ½, abstain and count as below every p. Where all draws agree, p_A is drawn
    half a draw from 1.
    """
    farthest = 1 - np.where(np.isfinite(run.draws), 0.5 / run.draws, NEAREST)
    known = np.sort(np.minimum(run.agreement, farthest)[run.agreement >= 0.5])
    quantile = ndtri(known)
    share = (len(known) - np.searchsorted(quantile, quantile, side="left")) / run.images
    start, end = (0.0, len(known) / run.images), (float(quantile.max(initial=0.0)) + 1e-6, 0.0)
    points = np.array([start, *zip(quantile, share, strict=True), end])
    return points[:, 0], points[:, 1]


def ticks_until(quantile: float, apart: float) -> list[tuple[float, str]]:
    """Φ⁻¹(p) and p as text, for those of `TICKS` up to `quantile`, at least `apart` of its length from each other."""
    ticks: list[tuple[float, str]] = []
    for p in TICKS:
        place = float(ndtri(p))
        if place <= quantile and (not ticks or place - ticks[-1][0] >= apart * quantile):
            ticks.append((place, f"{p:g}"))
    return ticks
