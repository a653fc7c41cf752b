"""What a recipe asks for: which blocks an image needs at one σ (in mode adaptive the most), and which radii."""

from rrcm_dist.certification.blocks import Stage
from rrcm_dist.certification.statistics.bounds import check_radii, largest_radius
from rrcm_dist.certification.statistics.confidence_sequence import largest_radius as sequential_reach
from rrcm_dist.certification.statistics.stopping import block_sizes
from rrcm_dist.config.schema import DEFAULT_RADII, CertifyConfig

PlannedBlocks = tuple[tuple[Stage, int, int], ...]
"""(stage, number within the stage, draws) in the order in which they are drawn."""


def planned_blocks(n0: int, n: int, block: int, first_block: int = 0, growth: float = 0.0) -> PlannedBlocks:
    """Selection blocks, then estimation blocks.

    Blocks have `block` draws, the last of a stage is shorter where that does not divide. In mode adaptive, which
    `first_block` > 0 stands for, the estimation blocks grow from `first_block` by the share `growth` up to `block`.
    """
    selection = _equal_sizes(n0, block)
    estimation = block_sizes(n, first_block, growth, block) if first_block else _equal_sizes(n, block)
    return tuple(
        (stage, number, draws)
        for stage, sizes in ((Stage.SELECTION, selection), (Stage.ESTIMATION, estimation))
        for number, draws in enumerate(sizes)
    )


def check_reach(recipe: CertifyConfig) -> None:
    """Raise `InvalidInput` for radii that were asked for and that no count of the recipe's draws could certify.

    The default radii are those of published tables, of which a small n reaches what it reaches.
    """
    if recipe.radii != DEFAULT_RADII:
        reach = sequential_reach if recipe.mode == "adaptive" else largest_radius
        check_radii(recipe.radii, recipe.n, recipe.alpha, [c.sigma for c in recipe.classifiers], reach)


def _equal_sizes(total: int, block: int) -> list[int]:
    return [min(block, total - first) for first in range(0, total, block)]
