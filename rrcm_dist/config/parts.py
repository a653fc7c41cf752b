"""The parts of training recipes: network, noise, data, views, optimiser, loop, tracking, evaluation.

Every value is in the field's units: steps count optimiser updates of one global batch; σ is on [0, 1] pixels, t on
[-1, 1] pixels (t = 2σ).
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Sigma = Annotated[float, Field(gt=0, description="Gaussian noise, standard deviation on [0, 1] pixels")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Strength = Annotated[float, Field(ge=0)]
Hue = Annotated[float, Field(ge=0, le=0.5)]


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"a range goes from the smaller to the larger number; given {pair[0]} to {pair[1]}")
    return pair


_Positive = Annotated[float, Field(gt=0)]
_Area = Annotated[float, Field(gt=0, le=1)]
PositiveRange = Annotated[tuple[_Positive, _Positive], AfterValidator(_ordered)]
AreaRange = Annotated[tuple[_Area, _Area], AfterValidator(_ordered)]


class Part(BaseModel):
    """Base of every part of a recipe: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


# --- the network -----------------------------------------------------------------------------------------------------


class EncoderConfig(Part):
    """The vision transformer with a class token and a time token."""

    image_size: Count
    """Height and width of the input in pixels."""
    patch: Count
    """Height and width of a patch in pixels; divides `image_size`."""
    width: Count
    """D, the width of a token and of the representation; even, and a multiple of `heads`."""
    depth: Count
    """Number of blocks."""
    heads: Count
    """Attention heads per block."""
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    """Hidden width of a block's MLP, in multiples of `width`."""
    freeze_patch_embedding: bool = False
    """Keep the patch embedding at its initialisation during pre-training (MoCo-v3)."""
    initialization: Literal["moco_v3", "torch"] = "torch"
    """Of the blocks and the patch embedding: MoCo-v3's uniform one, or torch's default."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.image_size % self.patch:
            raise ValueError(f"patch {self.patch} does not divide image_size {self.image_size}")
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} does not divide width {self.width}")
        if self.width % 2:
            raise ValueError(f"width {self.width} is odd; the time token needs an even width")
        return self


class ProjectorConfig(Part):
    """The three-layer projector on the representation; batch norm is over the global batch."""

    hidden: Count
    """Width of both hidden layers."""
    output: Count = 256
    """Width of the projection."""


class NoiseConfig(Part):
    """The EDM noise grid (Karras et al. 2022) on [-1, 1] pixels, and how its number of levels grows."""

    t_min: Annotated[float, Field(gt=0)] = 0.002
    """Least noise level; the contrastive loss is at it."""
    t_max: Annotated[float, Field(gt=0)] = 80.0
    """Greatest noise level."""
    rho: Annotated[float, Field(gt=0)] = 7.0
    """ρ, how densely the grid lies at low noise."""
    sigma_data: Annotated[float, Field(gt=0)] = 0.5
    """σ_data of the input scaling 1/sqrt(t² + σ_data²)."""
    levels_start: Count = 20
    """s0: intervals of the grid at the start of pre-training."""
    levels_end: Count = 80
    """s1: intervals of the grid at the end, and during fine-tuning (81 grid points)."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.t_min >= self.t_max:
            raise ValueError(f"t_min {self.t_min} must be below t_max {self.t_max}")
        if self.levels_start > self.levels_end:
            raise ValueError(f"levels_start {self.levels_start} must not exceed levels_end {self.levels_end}")
        return self


class TargetConfig(Part):
    """The exponential average of the online network: target = rate · target + (1 - rate) · online."""

    schedule: Literal["sigmoid", "constant"] = "sigmoid"
    """Rate from `start` to `end` by a sigmoid of the step, or `start` throughout."""
    start: Fraction = 0.99
    """Rate at the first step."""
    end: Fraction = 0.9999
    """Rate at the last step; without effect where the rate is constant."""
    sharpness: Annotated[float, Field(gt=0)] = 10.0
    """A of the sigmoid: 10 on ImageNet, 15 on CIFAR-10."""


# --- data ------------------------------------------------------------------------------------------------------------


class DataConfig(Part):
    """Where samples come from and in which order, which these and the seed decide, never the ranks or workers."""

    train: str
    """Folder of training shards (made by `python -m shards build`), or its URL in a store: https://…, s3://bucket/…"""
    held_out: str | None = None
    """Folder or URL of shards to evaluate on; never trained on."""
    cache: str | None = None
    """Local folder that keeps what was read from a store, shared by the ranks of a node; null: in the user's cache."""
    cache_gb: Annotated[float, Field(ge=0)] = 50.0
    """Most that the cache holds, in GB; the shards read longest ago make room. 0 keeps nothing but indexes."""
    store_patience: Annotated[float, Field(gt=0, le=1500)] = 600.0
    """Seconds for which a store that stalls or fails is asked again before the run stops (ranks wait longer)."""
    streams: Count = 8
    """C, the canonical streams an epoch is dealt to. Divides the batch; the number of ranks must divide it."""
    shuffle_window: Count = 16384
    """Samples of a stream that are shuffled among each other; nearby reads, far-reaching enough order."""
    workers: Annotated[int, Field(ge=0)] = 4
    """Decoding processes per rank; 0 decodes in the training process."""
    prefetch: Count = 4
    """Batches that the workers of a rank keep ready together."""
    max_decode_failures: Fraction = 0.001
    """Training stops when more than this share of the samples read could not be decoded."""


class PretrainingViews(Part):
    """The two MoCo-v3 views a and b; the third, plain view is resized, centre-cropped and flipped."""

    crop_scale: AreaRange = (0.08, 1.0)
    """Area of the random resized crop, as shares of the image."""
    flip: Fraction = 0.5
    """Chance of a horizontal flip, for each of the three views on its own."""
    jitter: tuple[Strength, Strength, Strength, Hue] = (0.4, 0.4, 0.2, 0.1)
    """Brightness, contrast, saturation, hue."""
    jitter_probability: Fraction = 0.8
    """Chance of the colour jitter."""
    greyscale_probability: Fraction = 0.2
    """Chance of losing the colours."""
    blur_sigma: PositiveRange = (0.1, 2.0)
    """Range of the Gaussian blur's standard deviation in pixels."""
    blur_probability: tuple[Fraction, Fraction] = (1.0, 0.1)
    """For view a and view b."""
    solarize_probability: tuple[Fraction, Fraction] = (0.0, 0.2)
    """For view a and view b."""


class FinetuningViews(Part):
    """What an image goes through before the noise is added in fine-tuning."""

    kind: Literal["weak", "strong", "randaugment"] = "weak"
    """weak: resize and centre crop; strong: random resized crop; randaugment: that, then timm's RandAugment."""
    flip: Fraction = 0.5
    """Chance of a horizontal flip."""
    crop_scale: AreaRange = (0.4, 1.0)
    """Area of the random resized crop of `strong` and `randaugment`, as shares of the image."""
    randaugment: str = "rand-m9-mstd0.5-inc1"
    """timm's description of its RandAugment."""


class MixingConfig(Part):
    """Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) within a canonical stream's share of a batch; 0 is off."""

    mixup: Annotated[float, Field(ge=0)] = 0.0
    """α of mixup's Beta(α, α)."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """α of CutMix's Beta(α, α)."""
    switch_probability: Fraction = 0.5
    """Chance of CutMix where both are on."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the label that is spread evenly over all classes."""


# --- training --------------------------------------------------------------------------------------------------------


class OptimizerConfig(Part):
    """AdamW with linear warm-up and a cosine to zero."""

    lr: Annotated[float, Field(gt=0)]
    """Peak learning rate; never rescaled by the batch."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay."""
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    """Decay of the averages of the gradient and of its square."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Length of the warm-up: steps in pre-training, epochs in fine-tuning."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest gradient norm, from the end of the warm-up on; null never clips."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of each layer as a share of the one above it (fine-tuning)."""


class TrainingConfig(Part):
    """The loop: how much, how large, how precise, and how often it looks up."""

    steps: Count | None = None
    """Optimiser steps in all; either this or `epochs`."""
    epochs: Count | None = None
    """Passes over the training shards; either this or `steps`."""
    batch: Count
    """Global batch, over all ranks."""
    micro_batch: Count | None = None
    """Images per rank encoded with a graph at a time; memory follows it, the result does not. null: all at once."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """bf16 is autocast over float32 master weights."""
    attention: Literal["auto", "sdpa", "xformers"] = "auto"
    """Which attention kernel: the same numbers; auto takes xFormers where it runs."""
    activation_checkpointing: bool = False
    """Keep only each block's input for the backward pass and compute the rest again: less memory, a third more time."""
    compile: bool = False
    """Let torch.compile fuse the blocks: faster steps on a GPU, after a minute or so at the start."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO stage; may change between a run and its resumption."""
    persistence_threshold: Annotated[int, Field(ge=0)] = 100_000
    """At ZeRO stage 3, parameters of up to so many numbers stay whole on every rank."""
    averages: Annotated[tuple[Momentum, ...], Field(max_length=2)] = ()
    """Rates of up to two exponential averages of the online weights, kept for evaluation and in checkpoints."""
    checkpoint_every: Count = 5000
    """Steps between checkpoints; the last step always makes one."""
    keep_checkpoints: Annotated[int, Field(ge=2)] = 3
    """Newest checkpoints kept; at least two, so that a damaged newest one has one before it."""
    keep_every: Count | None = None
    """Checkpoints whose step is a multiple of this stay for good; null keeps the newest only."""
    checkpoints_to: str | None = None
    """Folder or URL (s3://bucket/…) that every checkpoint is copied to as well; a run folder without checkpoints goes
    on from there."""
    log_every: Count = 10
    """Steps between lines of metrics.jsonl."""
    spike: Annotated[float, Field(gt=0)] | None = 8.0
    """A loss this many usual deviations above the last steps' median is a spike: its samples are written down. null
    looks for none."""
    stop_at_spike: bool = False
    """Stop the run at a spike instead of going on."""
    profile: tuple[Annotated[int, Field(ge=0)], Count] | None = None
    """First step and number of steps that PyTorch's profiler records, into the run folder's `profile/`."""
    device_tflops: Annotated[float, Field(gt=0)] | None = None
    """Peak of the device in TFLOP/s, for MFU; null: the GPU's published one, or a CPU's measured at the start."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs and leave the other null, not both and not neither")
        return self

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        if self.compile and self.zero_stage == 3:
            raise ValueError(
                "training.compile does not go with training.zero_stage 3, which fetches parameters in the midst of "
                "every block: set training.compile to false, or training.zero_stage to 0, 1 or 2"
            )
        return self


class TrackingConfig(Part):
    """Weights & Biases, beside the metrics.jsonl that every run writes."""

    wandb: Literal["off", "offline", "online"] = "off"
    """off; offline, to be synchronised later; or online."""
    project: str = "rrcm-dist"
    """Project in Weights & Biases."""
    entity: str | None = None
    """User or team in Weights & Biases; null takes the account's own."""


class KnnConfig(Part):
    """Weighted k-nearest-neighbour accuracy (Wu et al. 2018) of the representation, clean and under noise."""

    every: Count = 5000
    """Steps between evaluations; the last step always makes one."""
    neighbours: Count = 20
    """k: training images that vote."""
    temperature: Annotated[float, Field(gt=0)] = 0.07
    """A neighbour's vote is exp(cosine / temperature)."""
    bank: Count = 50000
    """Training images in the bank, evenly spaced over the shards; fewer where there are fewer."""
    queries: Count = 5000
    """Held-out images classified, evenly spaced over the shards."""
    sigmas: tuple[Annotated[float, Field(ge=0)], ...] = (0.0, 0.25, 0.5, 1.0)
    """Noise levels of the queries; the bank is clean."""


class ProbeConfig(Part):
    """A linear classifier trained beside pre-training on representations of view a, without touching the network."""

    on: bool = True
    """Whether there is one."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Its AdamW's constant learning rate."""


class NoisyAccuracyConfig(Part):
    """Accuracy of the base classifier on held-out images, one draw of noise per image and σ."""

    every_epochs: Count = 5
    """Epochs between evaluations; the last epoch always makes one."""
    images: Count = 5000
    """Held-out images, evenly spaced over the shards; fewer where there are fewer."""
    sigmas: tuple[Annotated[float, Field(ge=0)], ...] = (0.0, 0.25, 0.5, 1.0)
    """Noise levels; 0 is clean."""
