"""One image at one ε: the unit of verification, what comes of it, and its track in the pool."""

from dataclasses import dataclass

from rrcm_dist.certification.images import CertifiedImage


@dataclass(frozen=True)
class ImageAtEpsilon:
    """Which image and ε: what comes of it is a function of the run's identity and of these alone."""

    image: int
    """Sample id: the image's position in the dataset."""
    key: str
    """The image's name in the dataset, unique there; this, not the position, names its attack's random starts."""
    label: int
    epsilon: float
    cost: int
    """Passes through the network (`config.verify.passes_per_image`)."""

    @property
    def title(self) -> str:
        """What messages call it."""
        return "verification"


@dataclass(frozen=True)
class VerifiedImage:
    """What came of one image at one ε."""

    unit: ImageAtEpsilon
    prediction: int
    """Class of the clean image."""
    margin: float
    """Lower bound of the least margin in the ball, from interval bounds: above 0 the image is verified."""
    attack: float
    """Least margin that PGD found in the ball, the clean image included: at most 0 where there is an error."""
    host: str
    seconds: float

    def difference(self, other: "VerifiedImage") -> str:
        """How another result differs, in words; empty where it does not."""
        told = []
        for name in ("prediction", "margin", "attack"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                told.append(f"{name} {mine} and {theirs}")
        return ", ".join(told)


@dataclass(frozen=True)
class Checked:
    """What a worker returns for one unit (`pool.work.Answer`)."""

    prediction: int
    margin: float
    attack: float
    seconds: float
    problem: str = ""


class ImageTrack:
    """A track (`pool.work.Track`) of one unit."""

    doom = ""

    def __init__(self, image: CertifiedImage, epsilon: float, cost: int) -> None:
        self.image, self.level = image, epsilon
        self.place = f"epsilon {epsilon:g}"
        self.over = False
        self.losses_alone = 0
        self._unit = ImageAtEpsilon(image.image, image.key, image.label, epsilon, cost)
        self._handed = False
        self._result: VerifiedImage | None = None

    @property
    def needed(self) -> int:
        """1 until it is handed out."""
        return 0 if self.over or self._handed else 1

    @property
    def remaining(self) -> int:
        """Its passes until it is over."""
        return 0 if self.over else self._unit.cost

    def next_unit(self, ahead: int = 0) -> ImageAtEpsilon | None:
        """Its unit, once."""
        if not self.needed:
            return None
        self._handed = True
        return self._unit

    def accept(self, result: VerifiedImage) -> None:
        """Take the result, which `take` gives."""
        if not self.over:
            self._result = result

    def take(self) -> VerifiedImage | None:
        """The result, where it has come: it is over with that."""
        result, self._result = self._result, None
        self.over = self.over or result is not None
        return result

    def reject(self, unit: ImageAtEpsilon, reason: str) -> bool:
        """Without its unit it is over."""
        return True

    def end(self) -> None:
        """It needs nothing more."""
        self.over = True
        self._result = None
