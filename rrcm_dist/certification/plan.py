"""Which blocks an image needs at one σ: fixed in advance by the recipe, and in mode adaptive the most it may need."""

from rrcm_dist.certification.blocks import Stage
from rrcm_dist.certification.statistics.stopping import block_sizes

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


def _equal_sizes(total: int, block: int) -> list[int]:
    return [min(block, total - first) for first in range(0, total, block)]
