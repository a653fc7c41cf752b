"""A certificate: what the class counts of one image at one σ prove. Counts are summed first, then bounded once."""

from dataclasses import dataclass

import numpy as np

from rrcm_dist.certification.statistics.bounds import certified_radius, clopper_pearson_lower

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

    @property
    def abstains(self) -> bool:
        """Whether nothing is certified: p_lower < ½."""
        return self.p_lower < 0.5

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


def certify_counts(images: list[ImageCounts], alpha: float) -> list[Certificate]:
    """Certificates of `images`, which may differ in σ and number of draws, each with confidence 1 - α.

    The class is chosen by the selection counts alone and bounded by the estimation counts alone (Cohen et al. 2019,
    CERTIFY), so that the choice does not bias the estimate.
    """
    if not images:
        return []
    candidates = [int(np.argmax(image.selection)) for image in images]
    successes = np.array([image.estimation[c] for image, c in zip(images, candidates, strict=True)], dtype=np.int64)
    trials = np.array([image.estimation.sum() for image in images], dtype=np.int64)
    p_lower = clopper_pearson_lower(successes, trials, alpha)
    certificates = []
    for position, (image, candidate) in enumerate(zip(images, candidates, strict=True)):
        p = float(p_lower[position])
        certificates.append(
            Certificate(
                image=image.image, key=image.key, label=image.label, sigma=image.sigma, alpha=alpha,
                candidate=candidate, selected=int(image.selection[candidate]), n0=int(image.selection.sum()),
                successes=int(successes[position]), n=int(trials[position]),
                p_lower=p, radius=float(certified_radius(p, image.sigma)), seconds=image.seconds,
            )
        )  # fmt: skip
    return certificates
