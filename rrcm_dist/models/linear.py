"""Linear layers that keep less for the backward pass: what is cheap to compute is computed again."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Result = TypeVar("Result")


def keeping_its_input(function: Callable[[Tensor], Result], x: Tensor) -> Result:
    """`function(x)`, of which only x is kept for the backward pass.

    For a norm before a linear layer: the norm is computed again, the linear layer is not, since its result is not
    needed. The compiler decides by itself what to keep.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return function(x)
    return checkpoint(function, x, use_reentrant=False, preserve_rng_state=False)


class LinearAfterGelu(nn.Linear):
    """GELU, then Linear. For the backward pass only the input is kept, of which GELU is computed again: a quarter of a
    transformer block's activations fewer, for an operation beside two matrix products."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features) before GELU → (…, out_features)."""
        if torch.is_grad_enabled() and x.requires_grad:
            return _GeluLinear.apply(x, self.weight, self.bias)
        return F.linear(F.gelu(x), self.weight, self.bias)


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(F.gelu(x), weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        to_weight = rows.T @ F.gelu(x).to(rows.dtype).flatten(0, -2)
        to_gelu = (rows @ weight.to(rows.dtype)).view(x.shape).to(x.dtype)
        # In place: of a block's tensors these are the largest.
        to_x = torch.ops.aten.gelu_backward.grad_input(to_gelu, x, grad_input=to_gelu)
        return to_x, to_weight.to(weight.dtype), rows.sum(dim=0).to(weight.dtype)
