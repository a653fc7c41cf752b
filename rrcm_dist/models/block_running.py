"""How an encoder's blocks are run in training: kept, computed again, compiled; the same function in every way."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

BlockFunction = Callable[[nn.Module, Tensor, int | None], Tensor]
"""A block, its tokens (batch, tokens, width), and how many of the first tokens will be read, or None for all."""

COMPILED_FORMS = 16
"""Most forms that a block is compiled in: three, two or one view, three both with a graph and without, of a whole
micro-batch and of a smaller last one, and all of these for the last block. Further ones run as they are, so that no run
compiles without end."""


def run_block(block: nn.Module, x: Tensor, read: int | None) -> Tensor:
    """As it is."""
    return block(x, read)


def block_function(checkpointing: bool, compiled: bool) -> BlockFunction:
    """Blocks computed again from their inputs in the backward pass (`checkpointing`), or by torch.compile, or both."""
    run = _compiled() if compiled else run_block
    return functools.partial(_checkpointed, run) if checkpointing else run


def _checkpointed(run: BlockFunction, block: nn.Module, x: Tensor, read: int | None) -> Tensor:
    if not torch.is_grad_enabled():
        return run(block, x, read)
    # Nothing in a block draws random numbers.
    return checkpoint(run, block, x, read, use_reentrant=False, preserve_rng_state=False)


@functools.cache
def _compiled() -> BlockFunction:
    """Block by block: blocks are alike, so one compilation serves all of them."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED_FORMS)
    return torch.compile(run_block, dynamic=False)
