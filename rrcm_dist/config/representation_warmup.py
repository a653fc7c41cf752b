"""The section of representation warm-up: ERW, embedded representation warm-up (Liu et al. 2025, arXiv 2504.10188)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rrcm_dist.config.parts import Count, EncoderConfig, OptimizerConfig, Part


class TeacherConfig(Part):
    """The frozen network whose patch tokens are learned from; a local file or folder, nothing is ever downloaded."""

    weights: str
    """Weights file of the timm model `model`; or, where that is null, what says by itself which network it is: a
    folder in Hugging Face's layout (config.json, model.safetensors), or a pre-training run of ours (its folder, a
    checkpoint, a weights file)."""
    model: str | None = None
    """timm's name of the model whose weights a bare file holds, such as vit_base_patch14_dinov2."""
    network: Literal["online", "target"] = "target"
    """Which network of a run of ours."""


class AlignmentTermConfig(Part):
    """Alignment beside rRCM's loss in the main run: λ_k = weight · 2^(-k / halving_steps) at step k."""

    weight: Annotated[float, Field(ge=0)] = 1.0
    """c0, λ at the first step; 0 leaves the term out."""
    after_block: Count | None = None
    """Tokens after this block are aligned, counted from 1, not of the last one; null takes half the depth."""
    halving_steps: Count = 50_000
    """Steps in which λ halves."""


class RepresentationWarmupConfig(Part):
    """First the early blocks alone learn a frozen teacher's tokens, then the run starts from them (Liu et al. 2025)."""

    teacher: TeacherConfig
    steps: Count
    """Steps of the warm-up, on batches of `training.batch`."""
    blocks: Count = 4
    """L: how many of the first blocks are warmed up, with the embeddings before them."""
    hidden: Count = 2048
    """Width of both hidden layers of the heads from our tokens to the teacher's."""
    optimizer: OptimizerConfig
    """Of the warm-up alone; the main run begins with a fresh one."""
    term: AlignmentTermConfig = AlignmentTermConfig()

    @model_validator(mode="after")
    def _rate_is_reached(self) -> Self:
        if self.steps <= self.optimizer.warmup:
            raise ValueError(
                f"optimizer.warmup {self.optimizer.warmup} does not end before the representation warm-up's steps "
                f"{self.steps}: lower it or raise steps"
            )
        return self

    def term_block(self, encoder: EncoderConfig) -> int:
        """After which block the main run's term is."""
        return self.term.after_block or max(1, encoder.depth // 2)

    def check(self, encoder: EncoderConfig) -> None:
        """Raise `ValueError` where the encoder has not the blocks that are named."""
        where = "additions.representation_warmup"
        if self.blocks > encoder.depth:
            raise ValueError(f"{where}.blocks {self.blocks} is more than encoder.depth {encoder.depth}")
        if self.term.weight and self.term_block(encoder) >= encoder.depth:
            raise ValueError(
                f"{where}.term.after_block {self.term_block(encoder)} must be below encoder.depth {encoder.depth}: "
                "of the last block only the class token is computed; lower it, or set term.weight to 0"
            )
