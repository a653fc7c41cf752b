"""What certificates add up to: certified accuracy, average certified radius, abstention; each with its uncertainty.

Certified accuracy at r is mean(correct and radius ≥ r), an abstention counting as wrong (Cohen et al. 2019, section 4);
the average certified radius is mean(correct · radius) (Zhai et al. 2020). The intervals speak of the choice of test
images: what another draw of as many images would have given.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rrcm_dist.reporting.certificates import Certificates
from rrcm_dist.reporting.measures.bands import simultaneous_band
from rrcm_dist.reporting.measures.estimates import Estimate, mean, proportion


def certified_accuracy(run: Certificates, radius: float) -> Estimate:
    """Share of images that are correct with a certified radius of at least `radius`, with Wilson's interval."""
    return proportion(run.correct_radius >= radius)


def average_certified_radius(run: Certificates) -> Estimate:
    """Mean of correct · radius (in [0, 1]-pixel ℓ2 units), with Student's t interval."""
    estimate = mean(run.counted_radius)
    return Estimate(estimate.value, max(estimate.low, 0.0), estimate.high)


def abstention_rate(run: Certificates) -> Estimate:
    """Share of images for which the smoothed classifier tells no class, failed ones apart; Wilson's interval."""
    return proportion(run.abstained)


def certified_counts(run: Certificates, radii: ArrayLike) -> NDArray[np.int64]:
    """int64 (R,): how many images are correct with at least each of `radii` (R,)."""
    return run.images - np.searchsorted(np.sort(run.correct_radius), radii, side="left")


def certified_accuracy_curve(run: Certificates, radii: ArrayLike) -> NDArray[np.float64]:
    """float64 (3, R): certified accuracy at each of `radii` (R,), then the ends of the band that holds all of it."""
    certified = certified_counts(run, radii)
    return np.stack([certified / run.images, *simultaneous_band(certified, run.images)])


def best_of_sigma_curve(runs: Sequence[Certificates], radii: ArrayLike) -> NDArray[np.float64]:
    """float64 (R,): the highest certified accuracy of any of `runs` at each radius (the envelope papers print)."""
    shares = [certified_counts(run, radii) / run.images for run in runs]
    return cast("NDArray[np.float64]", np.max(shares, axis=0))
