"""How sure the smoothed classifier is: the distribution over images of p_A, the probability of the class chosen.

On the axis Φ⁻¹(p) the certified radius is a straight line, R = σ Φ⁻¹(p) (Cohen et al. 2019, theorem 1).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from rrcm_dist.reporting.certificates import Certificates

PROBABILITY_TICKS = (0.5, 0.7, 0.9, 0.97, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
"""Where an axis of probabilities is labelled."""
NEAREST = 1e-7
"""As near to 1 as a p_A is drawn: n agreeing draws of n stand there."""


def share_above(run: Certificates) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Φ⁻¹(p), float64 (P,), ascending from 0, and the share of all images with p_A ≥ p, float64 (P,).

    Images whose p_A is not known, or below ½, abstain and count as below every p.
    """
    known = np.sort(run.agreement[run.agreement >= 0.5])
    quantile = ndtri(np.minimum(known, 1 - _step(run)))
    share = (len(known) - np.searchsorted(quantile, quantile, side="left")) / run.images
    start, end = (0.0, len(known) / run.images), (float(quantile.max(initial=0.0)) + 1e-6, 0.0)
    points = np.array([start, *zip(quantile, share, strict=True), end])
    return points[:, 0], points[:, 1]


def _step(run: Certificates) -> float:
    """How far from 1 the best p_A is drawn: half a draw, where all n draws agree."""
    most = np.nanmax(run.draws) if np.isfinite(run.draws).any() else np.inf
    return max(NEAREST, 0.5 / most)
