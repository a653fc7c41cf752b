"""What a noise level adds up to while a run goes on: images decided, accuracy so far, draws spent."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rrcm_dist.certification.statistics.certificates import ImageCounts, certify_counts
from rrcm_dist.certification.watching.snapshot import LevelState


class LevelTally:
    """One noise level: what its decided images came to."""

    def __init__(self, sigma: float, images: int, radii: Sequence[float], alpha: float, draws_each: int) -> None:
        """`draws_each` is what an image costs in mode fixed."""
        self.sigma, self.failed = sigma, 0
        self._images, self._alpha, self._draws_each = images, alpha, draws_each
        self._radii: NDArray[np.float64] = np.array(sorted(radii), dtype=np.float64)
        self._certified = np.zeros(len(self._radii), dtype=np.int64)
        self._decided = self._draws = 0

    def add(self, images: list[ImageCounts]) -> None:
        """Images that need no further draw."""
        for certificate in certify_counts(images, self._alpha):
            self._decided += 1
            self._draws += certificate.n0 + certificate.n
            if certificate.correct:
                self._certified += certificate.radius >= self._radii

    def state(self) -> LevelState:
        """As watchers see it."""
        return LevelState(
            sigma=self.sigma, images=self._images, decided=self._decided, failed=self.failed,
            radii=tuple(self._radii.tolist()), certified=tuple(self._certified.tolist()), draws=self._draws,
            draws_saved=self._decided * self._draws_each - self._draws,
        )  # fmt: skip
