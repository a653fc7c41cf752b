"""Verifying images as work for the pool (`pool.work.Work`)."""

import math
from collections.abc import Hashable, Sequence

from rrcm_dist.certification.images import ImageSet
from rrcm_dist.certification.ledger.verification import ROUNDING, VerificationLedger
from rrcm_dist.certification.pool.work import Batching, Pulse
from rrcm_dist.certification.verification.images import (
    Checked,
    ImageAtEpsilon,
    ImageTrack,
    VerifiedImage,
)
from rrcm_dist.certification.verification.snapshot import EpsilonState, VerificationSnapshot
from rrcm_dist.config.verify import VerifyConfig, passes_per_image

BATCH_SECONDS = 1.0
"""A batch holds about so much work, or on CUDA a full device batch where that is more."""
BATCH_IMAGES = 1024
"""And at most so many images."""


class _Tally:
    """One ε: what its images came to."""

    def __init__(self, epsilon: float, images: int) -> None:
        self.epsilon, self.images = epsilon, images
        self.decided = self.failed = self.clean = self.pgd = self.verified = 0

    def add(self, label: int, prediction: int, margin: float, attack: float) -> None:
        self.decided += 1
        self.clean += prediction != label
        self.pgd += prediction != label or attack <= 0
        self.verified += margin <= 0

    def state(self) -> EpsilonState:
        return EpsilonState(
            self.epsilon, self.images, self.decided, self.failed, self.clean, self.pgd, self.verified
        )  # fmt: skip


class Verifying:
    """The verification of `images` at every ε of a recipe, into `ledger`."""

    def __init__(self, ledger: VerificationLedger, images: ImageSet, config: VerifyConfig, least: int) -> None:
        """The ledger knows the images and every ε already; `least` images fill a device batch."""
        self.ledger, self._images, self._config = ledger, images, config
        self.batching = Batching(BATCH_SECONDS, max(BATCH_IMAGES, least), least)
        self._tallies = {epsilon: _Tally(epsilon, len(images.images)) for epsilon in config.epsilons}
        self.worked: set[Hashable] = set()

    def tracks(self) -> list[ImageTrack]:
        """Every image and ε that the ledger has no result of."""
        cost = passes_per_image(self._config.attack)
        tracks = []
        for epsilon, tally in self._tallies.items():
            held = self.ledger.verified(epsilon)
            for image in self._images.images:
                row = held.get(image.image)
                if row is None:
                    tracks.append(ImageTrack(image, epsilon, cost))
                else:
                    tally.add(image.label, *row)
                    self.worked.add(epsilon)
        return tracks

    def result(self, unit: ImageAtEpsilon, answer: Checked, host: str) -> VerifiedImage:
        """The answer, checked to be numbers that can be: PGD, which sees the clean image, has its error, too."""
        if not (math.isfinite(answer.margin) and math.isfinite(answer.attack)):
            raise ValueError(f"margins that are no numbers: {answer.margin}, {answer.attack}")
        if answer.prediction != unit.label and answer.attack > ROUNDING:
            raise ValueError(
                f"class {answer.prediction} instead of {unit.label}, yet the least margin found is {answer.attack}, "
                "which counts that image"
            )
        self.worked.add(unit.epsilon)
        return VerifiedImage(unit, answer.prediction, answer.margin, answer.attack, host, answer.seconds)

    def settle(self, tracks: Sequence[ImageTrack]) -> list[ImageTrack]:
        """Results that have come go into the ledger."""
        taken = [(track, result) for track in tracks if (result := track.take()) is not None]
        self.ledger.add([result for _, result in taken])
        for track, one in taken:
            self._tallies[track.level].add(track.image.label, one.prediction, one.margin, one.attack)
        return [track for track, _ in taken]

    def given_up(self, track: ImageTrack, reason: str) -> None:
        """Its ε counts it as failed."""
        self._tallies[track.level].failed += 1

    def snapshot(self, pulse: Pulse) -> VerificationSnapshot:
        """The pulse in passes, and every ε."""
        return VerificationSnapshot(
            seconds=pulse.seconds, passes=pulse.done, passes_left=pulse.left, passes_per_second=pulse.per_second,
            worker_passes_per_second=pulse.worker_per_second, images_retried=pulse.retried,
            levels=tuple(tally.state() for tally in self._tallies.values()),
        )  # fmt: skip
