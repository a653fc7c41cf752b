"""What holds of the true smoothed classifier, whatever the draws of noise did: certificates may be wrong, few are.

Each certificate is wrong with probability at most α, over its own draws of noise. So certified accuracy as papers
print it is approximate: some of the images counted may not be robust at the radius said. Cohen, Rosenfeld & Kolter
(ICML 2019, appendix "Estimating the certified test-set accuracy") make it a lower bound that holds with probability
1 - ρ, by Bernstein's inequality, radius by radius; here the same is said with exact binomial tails, ρ = 5 %:

- *on these images*: the number of wrong certificates of N is at most q, the (1 - ρ)-quantile of Binomial(N, α). One
  event bounds it for every radius at once, so the true certified accuracy is ≥ (c(r) - q) / N at all r together, c(r)
  being the number counted at r.
- *of the population* that the images are drawn from: an image is counted with probability at most θ + (1 - θ) α where
  θ is the population's true certified accuracy at r. With L the Clopper–Pearson lower bound of that probability at
  confidence 1 - ρ from c(r) of N, θ ≥ (L - α) / (1 - α). This holds at each radius by itself.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from rrcm_dist.certification.statistics.bounds import clopper_pearson_lower
from rrcm_dist.reporting.measures.estimates import CONFIDENCE


@dataclass(frozen=True)
class Guarantee:
    """Lower bounds of the true certified accuracy, by radius, each with confidence 95 %.

    Attributes:
        alpha: Chance that one certificate is wrong.
        wrong: q, the most certificates that are wrong.
        on_images: Of the certified test images, at all radii at once.
        of_population: Of the population that they are drawn from, at each radius.
    """

    alpha: float
    wrong: int
    on_images: dict[float, float]
    of_population: dict[float, float]


def guarantee(counts: NDArray[np.int64], radii: tuple[float, ...], images: int, alpha: float) -> Guarantee:
    """Bound the true certified accuracy from `counts` (R,) of `images` counted at `radii` (R,)."""
    wrong = most_wrong(images, alpha)
    on_images = np.maximum(counts - wrong, 0) / images
    of_population = population_lower(counts, images, alpha)
    return Guarantee(
        alpha,
        wrong,
        dict(zip(radii, on_images.tolist(), strict=True)),
        dict(zip(radii, of_population.tolist(), strict=True)),
    )


def most_wrong(images: int, alpha: float, error: float = 1 - CONFIDENCE) -> int:
    """q: more than so many of `images` certificates are wrong with probability at most `error`."""
    return int(np.argmax(bdtr(np.arange(images + 1), images, alpha) >= 1 - error))


def population_lower(
    counts: NDArray[np.int64], images: int, alpha: float, error: float = 1 - CONFIDENCE
) -> NDArray[np.float64]:
    """θ's lower bound at each of `counts`: what the counted share leaves when wrong certificates are taken off."""
    lowest = clopper_pearson_lower(counts, images, error)
    return np.maximum((lowest - alpha) / (1 - alpha), 0.0)
