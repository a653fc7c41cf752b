"""What a report is made from: the certificates of one run at one σ, and where they came from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ABSTAIN = -1
"""The `predict` value of an image whose class the smoothed classifier does not tell (radius 0)."""
OUT_OF_REACH = "out of reach of n draws at this σ"
UNDECIDED = "not among the radii that mode adaptive decided"


@dataclass(frozen=True)
class Source:
    """Something to report on.

    Attributes:
        path: A log, a ledger, or a folder that holds some.
        name: What all runs found there are called; None takes the names from the files.
        sigma: Noise standard deviation on [0, 1] pixels of logs that do not state theirs.
        alpha: Chance that a certificate is wrong: of logs that do not state theirs, and of ledgers in place of theirs.
    """

    path: Path
    name: str | None = None
    sigma: float | None = None
    alpha: float | None = None


@dataclass(frozen=True)
class Provenance:
    """Where certificates came from.

    Attributes:
        path: The file they were read from.
        kind: "log" or "ledger".
        date: Last change of the file, ISO 8601 day.
        settings: What is known of how they were made (n0, n, alpha, seed, bound, checkpoint), as text by name.
        dataset: Of a ledger, the data set with published results that its facts fit; None where there is none.
        rounded: True where radii stand in the file with three significant digits at most, so some are rounded up.
        alpha: Chance that a certificate is wrong; None where not known.
        mode: "fixed", "adaptive", or "" where not known.
        n: Estimation draws of an image, in mode adaptive the most of them; None where not known.
        grid: Of a ledger, the radii of its recipe; in mode adaptive nothing is decided at others.
        reach: The largest radius that n draws can certify at this α and σ; inf where not known.
        fixed_draws: Draws of an image with fixed n, selection included; None where not known.
        device: Kind of device that made the draws: "cuda", "cpu", or "" where not known.
        agreement: What `Certificates.agreement` is: "estimate" (successes / n) or "bound" (p_lower).
    """

    path: Path
    kind: str
    date: str
    settings: Mapping[str, str] = field(default_factory=dict)
    dataset: str | None = None
    rounded: bool = False
    alpha: float | None = None
    mode: str = ""
    n: int | None = None
    grid: tuple[float, ...] = ()
    reach: float = math.inf
    fixed_draws: int | None = None
    device: str = ""
    agreement: str = "bound"


@dataclass(frozen=True)
class Certificates:
    """The certificates of one run at one noise level; arrays run over its N images, each image once.

    Attributes:
        name: The run's family: runs of one name differ in σ only.
        sigma: Noise standard deviation on [0, 1] pixels.
        image: int64 (N,), index of the image in its test set, ascending.
        label: int64 (N,), the true class.
        predict: int64 (N,), the smoothed classifier's class; `ABSTAIN` where it does not tell.
        radius: float64 (N,), certified ℓ2 radius on [0, 1] pixels, ≥ 0.
        seconds: float64 (N,), time spent on the image; NaN where not known.
        agreement: float64 (N,), p_A: the probability of the class chosen under noise, as far as it is known (see
            `Provenance.agreement`); NaN where it is not.
        draws: float64 (N,), draws spent on the image, selection included; NaN where not known.
        failures: Images that were given up, with the reason; they count as not certified.
        provenance: Where they came from.
    """

    name: str
    sigma: float
    image: NDArray[np.int64]
    label: NDArray[np.int64]
    predict: NDArray[np.int64]
    radius: NDArray[np.float64]
    seconds: NDArray[np.float64]
    agreement: NDArray[np.float64]
    draws: NDArray[np.float64]
    provenance: Provenance
    failures: Mapping[int, str] = field(default_factory=dict)

    def gap(self, radius: float) -> str:
        """Why the run says nothing at `radius`: `OUT_OF_REACH` or `UNDECIDED`; '' where it does."""
        if radius > self.provenance.reach:
            return OUT_OF_REACH
        decided = self.provenance.mode != "adaptive" or radius in self.provenance.grid
        return "" if decided else UNDECIDED

    @property
    def failed(self) -> NDArray[np.bool_]:
        """bool (N,): the image was given up."""
        return np.isin(self.image, np.array(list(self.failures), dtype=np.int64))

    @property
    def correct(self) -> NDArray[np.bool_]:
        """bool (N,): the smoothed classifier tells a class and it is the true one."""
        return (self.predict == self.label) & (self.predict != ABSTAIN)

    @property
    def abstained(self) -> NDArray[np.bool_]:
        """bool (N,): the smoothed classifier tells no class; a failed image, of which nothing is known, is not one."""
        return (self.predict == ABSTAIN) & ~self.failed

    @property
    def correct_radius(self) -> NDArray[np.float64]:
        """float64 (N,): the radius where correct, else -1, so that `>= r` is 'certified at r' for every r ≥ 0."""
        return np.where(self.correct, self.radius, -1.0)

    @property
    def counted_radius(self) -> NDArray[np.float64]:
        """float64 (N,): the radius where correct, else 0: what the average certified radius is the mean of."""
        return np.where(self.correct, self.radius, 0.0)

    @property
    def images(self) -> int:
        """N, the number of images."""
        return len(self.image)
