"""The recipe of ℓ∞ certified training by interval bound propagation (Shi et al., NeurIPS 2021)."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from rrcm_dist.config.parts import Count, DataConfig, Fraction, Momentum, Part, Seed, TrackingConfig, TrainingConfig

Epsilon = Annotated[float, Field(gt=0, le=1, description="ℓ∞ radius on [0, 1] pixels")]
Channels = Literal[1, 3]
_Deviation = Annotated[float, Field(gt=0)]


def _rising(epochs: tuple[int, ...]) -> tuple[int, ...]:
    if list(epochs) != sorted(set(epochs)):
        raise ValueError(f"milestones rise; given {list(epochs)}")
    return epochs


_ONLY_OF = {"stem": ("wide_resnet", "resnext"), "blocks": ("wide_resnet", "resnext"), "groups": ("resnext",)}
"""Keys that not every kind of network reads."""


class IbpNetworkConfig(Part):
    """A network whose bounds can be propagated; every convolution and hidden linear layer has batch norm behind it."""

    kind: Literal["cnn7", "wide_resnet", "resnext"] = "cnn7"
    """cnn7: five convolutions, two linear layers; wide_resnet: stages of two 3 × 3 convolutions; resnext: grouped."""
    image_size: Annotated[int, Field(ge=4)]
    """Height and width of the input in pixels."""
    channels: Channels = 3
    """1 takes grey images as one channel (an adversary then cannot colour them), 3 takes colours."""
    width: Count = 64
    """Channels of the first stage, doubled at each halving of the image: 64 in the paper's CNN-7, 128 (factor 8) in its
    Wide-ResNet; of a ResNeXt the width of a group, 32."""
    hidden: Count = 512
    """Width of the hidden linear layer."""
    stem: Count = 16
    """Channels of the first convolution of wide_resnet (16) and resnext (64); a cnn7 has none."""
    blocks: Count = 1
    """Blocks per stage of wide_resnet and resnext."""
    groups: Count = 2
    """Groups of the grouped convolutions of resnext."""
    batch_norm: bool = True
    """False leaves batch norm out, as methods before did."""
    mean: tuple[Fraction, ...] = (0.0,)
    """Subtracted from [0, 1] pixels by the first layer: one number per channel, or one for all."""
    std: tuple[_Deviation, ...] = (1.0,)
    """Divided by afterwards; the same."""
    initialization: Literal["ibp", "torch"] = "ibp"
    """ibp: N(0, 2π / fan-in²), which keeps the bounds' width through depth; torch: torch's default."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise ValueError(f"{name} has {len(values)} numbers; give 1 or {self.channels}, the channels")
        for name, kinds in _ONLY_OF.items():
            # Other than its default, not given at all: recipes that are written back hold every key.
            if self.kind not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is of {' and '.join(kinds)}: a {self.kind} has none, leave it out")
        return self


class EpsilonConfig(Part):
    """How ε grows in training: 0, then a ramp (quartic for its first quarter, then linear), then the target."""

    target: Epsilon
    """ℓ∞ radius on [0, 1] pixels that is trained for and evaluated at."""
    clean_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs at ε = 0."""
    ramp_epochs: Annotated[int, Field(ge=0)] = 20
    """Epochs from 0 to the target."""


class RegularizersConfig(Part):
    """The regularisers of the warm-up; their weight falls as ε rises and is 0 once it is at its target."""

    weight: Annotated[float, Field(ge=0)] = 0.5
    """λ0 of λ = λ0 (1 - ε / target); 0 leaves both out."""
    tolerance: Annotated[float, Field(gt=0)] = 0.5
    """τ, from where on neither is felt."""
    tightness: bool = True
    """Bounds that grow wider with depth cost."""
    balance: bool = True
    """Active and inactive ReLU units out of balance cost."""


class IbpViews(Part):
    """What an image goes through in training: resized and centre-cropped, shifted, flipped."""

    padding: Annotated[int, Field(ge=0)] = 0
    """Most pixels that an image is shifted by in each direction; its border is repeated. 0 shifts none."""
    flip: Fraction = 0.0
    """Chance of a horizontal flip."""


class IbpOptimizerConfig(Part):
    """Adam with steps down; with weight decay it is AdamW."""

    lr: Annotated[float, Field(gt=0)] = 5e-4
    """Learning rate before the first milestone; never rescaled by the batch."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay."""
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    """Decay of the averages of the gradient and of its square."""
    clip: Annotated[float, Field(gt=0)] | None = 10.0
    """Largest gradient norm, from the first step on; null never clips."""
    milestones: Annotated[tuple[Count, ...], AfterValidator(_rising)] = ()
    """Epochs after which the learning rate falls."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.2
    """What it is multiplied by at each milestone."""


class IbpTrainingConfig(TrainingConfig):
    """The loop, as in the other trainings, but for what bounds do not go with."""

    precision: Literal["fp32"] = "fp32"
    """Bounds are in float32."""
    zero_stage: Literal[0, 1, 2] = 0
    """DeepSpeed ZeRO stage; may change between a run and its resumption."""

    @model_validator(mode="after")
    def _bounds_go_with_it(self) -> Self:
        if self.micro_batch is not None:
            raise ValueError("training.micro_batch must be null: batch norm sees a rank's rows at once; use more ranks")
        if self.compile or self.activation_checkpointing:
            raise ValueError("training.compile and training.activation_checkpointing are of transformers: leave both")
        return self


class IbpEvaluationConfig(Part):
    """Clean and verified error at the target ε on held-out images."""

    every_epochs: Count = 5
    """Epochs between evaluations; the last epoch always makes one."""
    images: Count = 10000
    """Held-out images, evenly spaced over the shards; fewer where there are fewer."""


class IbpConfig(Part):
    """ℓ∞ certified training: cross-entropy on lower bounds of the margins, by interval bound propagation."""

    kind: Literal["train-ibp"] = "train-ibp"
    """What the recipe is for."""
    name: str
    """Name of the run in logs and trackers."""
    seed: Seed = 0
    """Everything random in the run follows from it."""
    output: str
    """Run folder."""
    classes: Annotated[int, Field(ge=2)]
    """Classes of the training shards."""
    network: IbpNetworkConfig
    epsilon: EpsilonConfig
    regularizers: RegularizersConfig = RegularizersConfig()
    data: DataConfig
    views: IbpViews = IbpViews()
    optimizer: IbpOptimizerConfig = IbpOptimizerConfig()
    training: IbpTrainingConfig
    evaluation: IbpEvaluationConfig = IbpEvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.training.batch % self.data.streams:
            raise ValueError(f"data.streams {self.data.streams} does not divide training.batch {self.training.batch}")
        schedule, epochs = self.epsilon, self.training.epochs
        if epochs is not None and schedule.clean_epochs + schedule.ramp_epochs > epochs:
            raise ValueError(
                f"epsilon.clean_epochs {schedule.clean_epochs} and epsilon.ramp_epochs {schedule.ramp_epochs} do not "
                f"end within training.epochs {epochs}: ε would never reach its target"
            )
        if epochs is not None and any(milestone >= epochs for milestone in self.optimizer.milestones):
            raise ValueError(
                f"optimizer.milestones {list(self.optimizer.milestones)} do not all come before training.epochs "
                f"{epochs}: the learning rate would not fall there; give others (the published ones are of the "
                "published number of epochs)"
            )
        return self
