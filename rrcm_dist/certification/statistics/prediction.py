"""Prediction by the smoothed classifier: the class of most draws, or none where the second is too close.

PREDICT of Cohen, Rosenfeld & Kolter, "Certified adversarial robustness via randomized smoothing", ICML 2019, section
3.2.1; that a test of the two most frequent classes suffices is Hung & Fithian, "Rank verification for exponential
families", Annals of Statistics 47, 2019.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc

from rrcm_dist.certification.statistics.bounds import check_alpha
from rrcm_dist.certification.statistics.certificates import ABSTAIN, ImageCounts
from rrcm_dist.errors import InvalidInput

TAIL_GUARD = 1e-9
"""Share added to a p-value: sixty times the largest error found against 40 digits, for up to 10⁸ draws."""


@dataclass(frozen=True)
class Prediction:
    """One image at one σ: the class that the smoothed classifier gives it, with confidence 1 - α, or none."""

    image: int
    """The image's sample id: its position in the dataset."""
    key: str
    """The image's name in the dataset."""
    label: int
    sigma: float
    alpha: float
    top: int
    """The most frequent class of the `n` draws (the lowest number among equals)."""
    top_draws: int
    """How many of the draws were given it."""
    second: int
    """The most frequent class but `top`."""
    second_draws: int
    """How many of the draws were given it."""
    n: int
    p_value: float
    """Of the two-sided test that `top` and `second` are equally probable."""

    @property
    def abstains(self) -> bool:
        """Whether the draws do not tell `top` from `second` at α."""
        return self.p_value > self.alpha

    @property
    def prediction(self) -> int:
        """The predicted class, or `ABSTAIN`."""
        return ABSTAIN if self.abstains else self.top

    @property
    def correct(self) -> bool:
        """Whether the predicted class is the label."""
        return self.prediction == self.label


def predict_counts(images: list[ImageCounts], alpha: float) -> list[Prediction]:
    """Predictions from the estimation counts of `images`, each wrong about the smoothed classifier with chance ≤ α.

    The number of draws must have been chosen without looking at them. Raises `InvalidInput` for an α that cannot be,
    and for fewer than two classes.
    """
    check_alpha(alpha)
    if any(len(image.estimation) < 2 for image in images):
        raise InvalidInput("one class cannot be told from another: prediction needs at least two classes")
    ranked = [np.argsort(-image.estimation, kind="stable")[:2].tolist() for image in images]
    draws = [image.estimation[classes].tolist() for image, classes in zip(images, ranked, strict=True)]
    p_values = equality_p_value(*np.array(draws, dtype=np.int64).reshape(-1, 2).T)
    return [
        Prediction(
            image=image.image, key=image.key, label=image.label, sigma=image.sigma, alpha=alpha, top=classes[0],
            top_draws=counts[0], second=classes[1], second_draws=counts[1], n=int(image.estimation.sum()),
            p_value=float(p_value),
        )
        for image, classes, counts, p_value in zip(images, ranked, draws, p_values, strict=True)
    ]  # fmt: skip


def equality_p_value(more: ArrayLike, fewer: ArrayLike) -> NDArray[np.float64]:
    """Two-sided binomial test that `more` ≥ `fewer` of their sum are a fair coin's, never below the exact p-value.

    min(1, 2 P[Binomial(more + fewer, ½) ≥ more]) in float64, at least the smallest normal number; integers of shapes
    that broadcast.
    """
    n_a, n_b = np.asarray(more, dtype=np.float64), np.asarray(fewer, dtype=np.float64)
    tail = betainc(np.maximum(n_a, 1.0), n_b + 1.0, 0.5)
    p_value = np.maximum(2.0 * tail * (1.0 + TAIL_GUARD), np.finfo(np.float64).tiny)
    return np.where(n_a > n_b, np.minimum(p_value, 1.0), 1.0)
