"""The recipe of deterministic ℓ∞ verification: interval bounds as the certificate, PGD as the check from above."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rrcm_dist.config.parts import Count, Fraction, Part, Seed, TrackingConfig
from rrcm_dist.config.schema import SelectionConfig

Steps = Annotated[int, Field(ge=0)]


class AttackConfig(Part):
    """Projected gradient descent (Madry et al. 2018) on the margin, from random starts within the ball.

    The defaults are those that IBP papers evaluate with (Gowal et al. 2018: 200 steps, 10 restarts). A step is 2.5 ε
    over the number of steps.
    """

    steps: Steps = 200
    """Gradient steps of a restart."""
    restarts: Steps = 10
    """Random starts of each image; 0 looks at the clean image alone."""


def passes_per_image(attack: AttackConfig) -> int:
    """Passes through the network that one image takes at one ε: clean, bounds, and every point of the attack."""
    return 2 + attack.restarts * (attack.steps + 1)


class VerifyConfig(Part):
    """ℓ∞ verification of a network through which interval bounds go, at each ε, all into one ledger."""

    kind: Literal["verify"] = "verify"
    """What the recipe is for."""
    name: str
    """Name of the run in logs and trackers."""
    seed: Seed = 0
    """The attack's random starts follow from it; bounds have nothing random."""
    output: str
    """Folder of the ledger (ledger.sqlite)."""
    checkpoint: str | None = None
    """Run folder of `rrcm train-ibp`, checkpoint folder or weights file."""
    function: str | None = None
    """`package.module:function` giving a torch.nn.Module of layers that bounds are known for, on [0, 1] pixels."""
    data: str
    """Folder or URL of shards to verify."""
    image_size: Count
    """Images are resized (short side) and centre-cropped to this."""
    images: SelectionConfig = SelectionConfig()
    epsilons: Annotated[tuple[Fraction, ...], Field(min_length=1)]
    """ℓ∞ radii on [0, 1] pixels, each 0 to 1."""
    attack: AttackConfig = AttackConfig()
    device_batch: Count = 512
    """On CUDA: images (those of all restarts) per forward pass; speed, memory and rounding alone depend on it."""
    precision: Literal["fp32"] = "fp32"
    """Of the network and its bounds."""
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.checkpoint is None) == (self.function is None):
            raise ValueError("give either checkpoint or function and leave the other null, not both and not neither")
        if len(set(self.epsilons)) < len(self.epsilons):
            raise ValueError(f"epsilons must differ; given {list(self.epsilons)}")
        return self

    @property
    def source(self) -> str:
        """Where the network comes from, for people."""
        return self.function or str(self.checkpoint)
