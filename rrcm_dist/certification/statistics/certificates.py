"""A certificate: what the class counts of one image at one σ prove. Counts are summed first, then bounded once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rrcm_dist.certification.statistics.bounds import certified_radius, clopper_pearson_lower
from rrcm_dist.certification.statistics.confidence_sequence import lower_bound
from rrcm_dist.certification.statistics.two_sided import most_frequent_other, simultaneous_bounds, two_sided_radius
from rrcm_dist.errors import InvalidInput

ABSTAIN = -1
"""The predicted class of an image that is not certified at any radius."""


@dataclass(frozen=True)
class Certificate:
    """One image at one σ, certified with confidence 1 - α."""

    image: int
    """The image's sample id: its position in the dataset."""
    key: str
    """The image's name in the dataset."""
    label: int
    sigma: float
    alpha: float
    candidate: int
    """The class that the selection draws chose (the lowest of equally frequent ones)."""
    selected: int
    """How many of the `n0` selection draws agreed on it."""
    n0: int
    successes: int
    """How many of the `n` estimation draws agree with it."""
    n: int
    p_lower: float
    """Lower confidence bound of the probability of `candidate` under noise."""
    radius: float
    """Certified l2 radius on [0, 1] pixels; 0 where the image abstains."""
    seconds: float
    """Time that its draws took, over all blocks."""
    runner_up: int | None = None
    """The class that the estimation draws gave most often after `candidate`; None where one side alone is bounded."""
    runner_up_successes: int | None = None
    """How many of the `n` estimation draws were given it; None as before."""
    p_upper: float | None = None
    """Upper confidence bound of the probability of every class but `candidate`, at once; None as before."""

    @property
    def abstains(self) -> bool:
        """Whether nothing is certified: p_lower < ½; with two sides, p_lower ≤ p_upper."""
        return self.p_lower < 0.5 if self.p_upper is None else self.p_lower <= self.p_upper

    @property
    def prediction(self) -> int:
        """The certified class, or `ABSTAIN`."""
        return ABSTAIN if self.abstains else self.candidate

    @property
    def correct(self) -> bool:
        """Whether the certified class is the label."""
        return self.prediction == self.label


@dataclass(frozen=True)
class ImageCounts:
    """The class counts of one image at one σ, summed over the blocks of each stage: int64 (classes,)."""

    image: int
    key: str
    label: int
    sigma: float
    selection: np.ndarray
    estimation: np.ndarray
    seconds: float
    looks: np.ndarray | None = None
    """Of mode adaptive: int64 (2, looks), successes of the candidate and trials after each estimation block."""

    @property
    def candidate(self) -> int:
        """The class that the selection draws chose: the lowest of equally frequent ones."""
        return int(np.argmax(self.selection))


def certify_counts(images: list[ImageCounts], alpha: float, two_sided: bool = False) -> list[Certificate]:
    """Certificates of `images`, which may differ in σ and number of draws, each with confidence 1 - α.

    With `looks` (of all images, or of none) the bound is that of the time-uniform confidence sequence, which holds
    whenever and for whatever reason an image stopped; without, Clopper–Pearson, for a number of draws fixed before.
    The class is chosen by the selection counts alone and bounded by the estimation counts alone (Cohen et al. 2019,
    CERTIFY), so that the choice does not bias the estimate. `two_sided` bounds the runner-up besides, of the same α
    (see `two_sided`). Raises `InvalidInput` for two sides of fewer than two classes or of mode adaptive.
    """
    if not images:
        return []
    if two_sided and any(image.looks is not None for image in images):
        raise InvalidInput(
            "two-sided bounds need a number of draws fixed beforehand, and in mode adaptive the counts decided when to "
            "stop: use the one-sided certificates, or certify with mode=fixed"
        )
    candidates = [image.candidate for image in images]
    successes = np.array([image.estimation[c] for image, c in zip(images, candidates, strict=True)], dtype=np.int64)
    trials = np.array([image.estimation.sum() for image in images], dtype=np.int64)
    if not two_sided:
        sequential = images[0].looks is not None
        p_lower = last_lower_bounds(images, alpha) if sequential else clopper_pearson_lower(successes, trials, alpha)
        return [
            _certificate(image, candidate, alpha, float(p), float(certified_radius(p, image.sigma)))
            for image, candidate, p in zip(images, candidates, p_lower, strict=True)
        ]
    others = [most_frequent_other(image.estimation, c) for image, c in zip(images, candidates, strict=True)]
    counts = np.array([image.estimation[other] for image, other in zip(images, others, strict=True)], dtype=np.int64)
    p_lower, p_upper = simultaneous_bounds(successes, counts, trials, alpha)
    radii = [float(two_sided_radius(p_lower[i], p_upper[i], image.sigma)) for i, image in enumerate(images)]
    return [
        replace(
            _certificate(image, candidates[i], alpha, float(p_lower[i]), radii[i]),
            runner_up=others[i], runner_up_successes=int(counts[i]), p_upper=float(p_upper[i]),
        )
        for i, image in enumerate(images)
    ]  # fmt: skip


def _certificate(image: ImageCounts, candidate: int, alpha: float, p_lower: float, radius: float) -> Certificate:
    return Certificate(
        image=image.image, key=image.key, label=image.label, sigma=image.sigma, alpha=alpha,
        candidate=candidate, selected=int(image.selection[candidate]), n0=int(image.selection.sum()),
        successes=int(image.estimation[candidate]), n=int(image.estimation.sum()),
        p_lower=p_lower, radius=radius, seconds=image.seconds,
    )  # fmt: skip


def last_lower_bounds(images: Sequence[ImageCounts], alpha: float) -> NDArray[np.float64]:
    """The highest lower bound of each image over its looks, float64 (images,): it holds at all of them at once."""
    looks = [image.looks for image in images]
    assert all(look is not None for look in looks), "mode adaptive has looks"
    successes, trials = np.concatenate(looks, axis=1)  # type: ignore[arg-type]
    firsts = np.cumsum([0, *(look.shape[1] for look in looks[:-1])])  # type: ignore[union-attr]
    return np.maximum.reduceat(lower_bound(successes, trials, alpha), firsts)
