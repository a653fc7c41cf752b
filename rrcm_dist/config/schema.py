"""Recipes: what a run is, typed and frozen. A run is a pure function of its recipe.

Five kinds: `pretrain`, `finetune`, `certify`, `demo` (which nests the others) and `paper` (which names them). Training
recipes share `parts`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from rrcm_dist.config.additions import AdditionsConfig
from rrcm_dist.config.parts import (
    Count,
    DataConfig,
    EncoderConfig,
    FinetuningViews,
    KnnConfig,
    MixingConfig,
    NoiseConfig,
    NoisyAccuracyConfig,
    OptimizerConfig,
    Part,
    PretrainingViews,
    ProbeConfig,
    ProjectorConfig,
    Seed,
    Sigma,
    TargetConfig,
    TrackingConfig,
    TrainingConfig,
)


class PretrainConfig(Part):
    """Pre-training: the contrastive and the consistency loss of rRCM (Lei et al. 2025)."""

    kind: Literal["pretrain"] = "pretrain"
    """What the recipe is for."""
    name: str
    """Name of the run in logs and trackers."""
    seed: Seed = 0
    """Everything random in the run follows from it."""
    output: str
    """Run folder."""
    encoder: EncoderConfig
    projector: ProjectorConfig
    noise: NoiseConfig = NoiseConfig()
    target: TargetConfig = TargetConfig()
    temperature: Annotated[float, Field(gt=0)] = 0.2
    """τ of both losses."""
    additions: AdditionsConfig = AdditionsConfig()
    """What other papers add to rRCM; nothing unless given."""
    data: DataConfig
    views: PretrainingViews = PretrainingViews()
    optimizer: OptimizerConfig
    training: TrainingConfig
    knn: KnnConfig = KnnConfig()
    probe: ProbeConfig = ProbeConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_batch(self.training, self.data)
        _check_warmup(self.optimizer, self.training.steps, "steps")
        self.additions.check(self.encoder)
        return self


class FinetuneConfig(Part):
    """Fine-tuning at one σ: cross-entropy under noise with consistency regularisation (Jeong & Shin 2020)."""

    kind: Literal["finetune"] = "finetune"
    """What the recipe is for."""
    name: str
    """Name of the run in logs and trackers."""
    seed: Seed = 0
    """Everything random in the run follows from it."""
    output: str
    """Run folder."""
    sigma: Sigma
    start_from: str | None
    """Checkpoint folder, run folder or weights file to start from; null trains the encoder from scratch."""
    start_weights: Literal["target", "online"] = "target"
    """Which network of a pre-training checkpoint to start from."""
    encoder: EncoderConfig
    classes: Annotated[int, Field(ge=2)]
    """Classes of the training shards."""
    final_norm: bool
    """Apply the final LayerNorm before the linear head: on for ImageNet, off for CIFAR-10."""
    train_head: bool = True
    """False leaves the head at its near-zero start, as the released consistency task does."""
    noise: NoiseConfig = NoiseConfig()
    draws: Annotated[int, Field(ge=2)] = 2
    """m, noise draws per image and step."""
    consistency: Annotated[float, Field(ge=0)]
    """λ, weight of mean_j KL(p̄ ‖ p_j)."""
    entropy: Annotated[float, Field(ge=0)] = 0.5
    """η, weight of H(p̄)."""
    data: DataConfig
    views: FinetuningViews = FinetuningViews()
    mixing: MixingConfig = MixingConfig()
    optimizer: OptimizerConfig
    training: TrainingConfig
    evaluation: NoisyAccuracyConfig = NoisyAccuracyConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_batch(self.training, self.data)
        _check_warmup(self.optimizer, self.training.epochs, "epochs")
        mixes = self.mixing.mixup > 0 or self.mixing.cutmix > 0
        if mixes and self.training.batch // self.data.streams < 2:
            raise ValueError(
                "mixing needs at least two images of each stream in a batch: "
                f"lower data.streams ({self.data.streams}) or raise training.batch ({self.training.batch})"
            )
        return self


def _check_batch(training: TrainingConfig, data: DataConfig) -> None:
    if training.batch % data.streams:
        raise ValueError(f"data.streams {data.streams} does not divide training.batch {training.batch}")


def _check_warmup(optimizer: OptimizerConfig, length: int | None, unit: str) -> None:
    """`length` in the unit of the warm-up; None where that is not known before the shards are."""
    if length is not None and length <= optimizer.warmup:
        raise ValueError(
            f"optimizer.warmup {optimizer.warmup} ({unit}) does not end before training.{unit} {length}: "
            f"the learning rate would never reach optimizer.lr; lower optimizer.warmup or raise training.{unit}"
        )


DEFAULT_RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0)
"""ℓ2 radii on [0, 1] pixels that published tables stand at."""


class ClassifierConfig(Part):
    """The base classifier at one σ: one of our checkpoints, or any torch classifier."""

    sigma: Sigma
    checkpoint: str | None = None
    """Fine-tuned run folder, checkpoint folder or weights file."""
    function: str | None = None
    """`package.module:function` giving a torch.nn.Module: [0, 1] pixels (N, C, H, W), float32 → logits (N, classes)."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.checkpoint is None) == (self.function is None):
            raise ValueError("give either checkpoint or function and leave the other null, not both and not neither")
        return self


class SelectionConfig(Part):
    """Which images are certified: every k-th from `start` on, at most `count`; or the listed positions."""

    start: Annotated[int, Field(ge=0)] = 0
    """Position of the first image."""
    every: Count = 1
    """k: one image is taken, k - 1 are passed over."""
    count: Count | None = None
    """At most so many images; null takes all."""
    positions: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Positions in the dataset's order; excludes the other keys."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.positions is not None:
            if (self.start, self.every, self.count) != (0, 1, None):
                raise ValueError("positions excludes start, every and count: leave them out")
            if not self.positions or len(set(self.positions)) < len(self.positions):
                raise ValueError("positions must be a list of different positions, at least one")
        return self


class AdaptiveConfig(Part):
    """Fewer draws, the same guarantee: an image stops once all radii are decided, or more draws are not worth it."""

    first_block: Count = 100
    """Draws of the first estimation block; later ones grow up to `block`."""
    growth: Annotated[float, Field(ge=0, le=1)] = 0.15
    """Each estimation block is longer than the one before by this share."""
    draws_per_radius: Annotated[float, Field(gt=0)] = 75_000
    """The most draws that one further certified radius of an image may be expected to cost; larger gives up later."""


class CertifyConfig(Part):
    """Certification by randomized smoothing (Cohen et al. 2019), one pass per σ, all into one ledger."""

    kind: Literal["certify"] = "certify"
    """What the recipe is for."""
    name: str
    """Name of the run in logs and trackers."""
    seed: Seed = 0
    """Everything random in the run follows from it."""
    output: str
    """Folder of the ledger (ledger.sqlite) and the logs (one .tsv per σ)."""
    classifiers: Annotated[tuple[ClassifierConfig, ...], Field(min_length=1)]
    data: str
    """Folder or URL of shards to certify."""
    image_size: Count
    """Images are resized (short side) and centre-cropped to this before noise is added."""
    images: SelectionConfig = SelectionConfig()
    n0: Count = 100
    """Draws that choose the class; they never enter the estimate."""
    mode: Literal["fixed", "adaptive"] = "fixed"
    """fixed: n draws for every image, as papers do; adaptive: at most n, by a time-uniform confidence sequence."""
    n: Count = 100_000
    """Fresh draws that estimate its probability; in mode adaptive the most of them."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.001
    """Chance, per image, that the certificate is wrong."""
    block: Count = 1000
    """Draws per block, the unit of work, of retry and of storage; in mode adaptive the most of a block."""
    radii: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = DEFAULT_RADII
    """ℓ2 radii on [0, 1] pixels: those of the table, and in mode adaptive those to be decided."""
    adaptive: AdaptiveConfig = AdaptiveConfig()
    """Of mode adaptive alone."""
    device_batch: Count = 400
    """Draws per forward pass; speed and memory alone depend on it."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the network; noise is always drawn and added in float32."""
    attention: Literal["auto", "sdpa", "xformers"] = "auto"
    """Which attention kernel: the same numbers; auto takes xFormers where it runs."""
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _sigmas_differ(self) -> Self:
        sigmas = [c.sigma for c in self.classifiers]
        if len(set(sigmas)) < len(sigmas):
            raise ValueError(f"one classifier per sigma; given {sigmas}")
        return self


class DemoConfig(Part):
    """The whole pipeline on scikit-learn's handwritten digits; the nested recipes are completed by the demo."""

    kind: Literal["demo"] = "demo"
    """What the recipe is for."""
    name: str
    """Name of the run in logs and trackers."""
    seed: Seed = 0
    """Everything random in the run follows from it."""
    output: str
    """Folder of everything the demo makes."""
    image_size: Count = 32
    """The 8 × 8 digits are resized to this."""
    held_out: Count = 360
    """Digits kept from training."""
    sigmas: Annotated[tuple[Sigma, ...], Field(min_length=1)] = (0.25, 0.5, 1.0)
    """Noise levels to fine-tune and certify at."""
    pretrain: PretrainConfig
    """Pre-training."""
    finetune: FinetuneConfig
    """Fine-tuning, the same for both encoders and every σ."""
    certify: CertifyConfig
    """Certification, the same for both encoders and every σ."""
    radii: tuple[Annotated[float, Field(ge=0)], ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0)
    """Radii of the report."""


class StageConfig(Part):
    """One stage of a paper, by the recipe that it runs."""

    recipe: str
    """Recipe of the stage's kind: a file, or a name such as cifar10/pretrain-b; of a demo recipe its part is taken."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Values that go before the recipe's, by dotted key: {training.steps: 1000}."""


class PaperConfig(Part):
    """The whole paper: shards check, pre-training, fine-tuning at each σ, certification, report.

    Folders and starting points of the stages follow from `output`, `train` and `held_out`.
    """

    kind: Literal["paper"] = "paper"
    """What the recipe is for."""
    name: str
    """Name of the whole, in queues and logs."""
    output: str
    """Folder of everything: checks, pretrain, sigma_0.25 …, certificates, report."""
    train: str
    """Folder or URL of the training shards."""
    held_out: str
    """Folder or URL of the shards that are evaluated on and certified."""
    pretrain: StageConfig
    """Pre-training."""
    finetune: Annotated[tuple[StageConfig, ...], Field(min_length=1)]
    """Fine-tuning, a stage for each σ, all from the pre-trained encoder."""
    certify: StageConfig
    """Certification of the fine-tuned classifiers; its own `classifiers` are not looked at."""
    title: str | None = None
    """Heading of the report; null makes it from the names."""
