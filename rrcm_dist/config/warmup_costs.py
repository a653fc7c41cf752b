"""What representation warm-up costs: formulas over the types; only the teacher's own cost is counted, by who builds it.

As in `estimate`, a FLOP is a multiplication or an addition of a matrix product.
"""

from dataclasses import dataclass

from rrcm_dist.config import estimate
from rrcm_dist.config.parts import EncoderConfig
from rrcm_dist.config.representation_warmup import RepresentationWarmupConfig
from rrcm_dist.config.schema import PretrainConfig


@dataclass(frozen=True)
class TeacherCost:
    """A frozen teacher at the input size that suits the student."""

    parameters: int
    flops: float
    """Of one image."""
    width: int
    """Of its tokens."""
    input_size: int
    """Height and width of its input in pixels."""


@dataclass(frozen=True)
class WarmupCosts:
    """What the warm-up and the term of a recipe with `additions.representation_warmup` cost with a teacher."""

    recipe: PretrainConfig
    teacher: TeacherCost

    @property
    def _section(self) -> RepresentationWarmupConfig:
        section = self.recipe.additions.representation_warmup
        assert section is not None
        return section

    @property
    def early_parameters(self) -> int:
        """Embeddings and early blocks: what is handed over."""
        return early_parameters(self.recipe.encoder, self._section.blocks)

    @property
    def head_parameters(self) -> int:
        """Three linear layers with bias, from our tokens to the teacher's."""
        width, hidden, output = self.recipe.encoder.width, self._section.hidden, self.teacher.width
        return (width + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * output

    @property
    def head_flops(self) -> float:
        """FLOPs of the head on one image's patches."""
        width, hidden, output = self.recipe.encoder.width, self._section.hidden, self.teacher.width
        patches = estimate.tokens(self.recipe.encoder) - estimate.EXTRA_TOKENS
        return 2.0 * patches * (width * hidden + hidden**2 + hidden * output)

    @property
    def warmup_step_flops(self) -> float:
        """A step of the warm-up: early blocks and head forward and backward, and the teacher forward."""
        early = early_flops(self.recipe.encoder, self._section.blocks)
        each = (1 + estimate.BACKWARD) * (early + self.head_flops) + self.teacher.flops
        return self.recipe.training.batch * each

    @property
    def warmup_flops(self) -> float:
        """The whole warm-up."""
        return self._section.steps * self.warmup_step_flops

    @property
    def term_step_flops(self) -> float:
        """What the term adds to a step of the main run: the head forward and backward, and the teacher forward."""
        if not self._section.term.weight:
            return 0.0
        return self.recipe.training.batch * ((1 + estimate.BACKWARD) * self.head_flops + self.teacher.flops)


def early_parameters(encoder: EncoderConfig, blocks: int) -> int:
    """Parameters of the embeddings and the first blocks."""
    whole = estimate.encoder_parameters(encoder) - 2 * encoder.width
    return whole - (encoder.depth - blocks) * estimate.block_parameters(encoder)


def early_flops(encoder: EncoderConfig, blocks: int) -> float:
    """FLOPs of one image through the embeddings and the first blocks, every token to the end."""
    whole = estimate.published_forward_flops(encoder)
    return whole - (encoder.depth - blocks) * estimate.block_flops(encoder, estimate.tokens(encoder))
