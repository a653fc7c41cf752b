"""Which blocks an image needs at one σ, and which of them are still to be drawn."""

from collections.abc import Iterator, Mapping

from rrcm_dist.certification.blocks import Block, Stage

HeldBlocks = Mapping[tuple[Stage, int], int]
"""What a ledger holds of one image at one σ: (stage, block number) → draws."""


def block_draws(total: int, block: int) -> list[int]:
    """Draws of each block of a stage of `total` draws: all `block`, the last one shorter where it does not divide."""
    return [min(block, total - first) for first in range(0, total, block)]


def planned_draws(n0: int, n: int, block: int) -> dict[Stage, list[int]]:
    """Draws of each block of each stage, in the order in which they are drawn."""
    return {Stage.SELECTION: block_draws(n0, block), Stage.ESTIMATION: block_draws(n, block)}


def missing_blocks(
    image: int, key: str, sigma: float, planned: Mapping[Stage, list[int]], held: HeldBlocks
) -> Iterator[Block]:
    """The planned blocks of an image that are not held with as many draws, in the order in which they are drawn.

    A held block is short of its plan only where it was the last one of a smaller n; it is then drawn anew as a whole,
    and its first draws are the same.
    """
    for stage, sizes in planned.items():
        for number, draws in enumerate(sizes):
            if held.get((stage, number), 0) < draws:
                yield Block(image, key, sigma, stage, number, draws)
