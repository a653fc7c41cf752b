"""Softmax attention over tokens: xFormers where it runs, torch's own elsewhere; the same numbers."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrcm_dist.errors import InvalidInput
from rrcm_dist.models.linear import keeping_its_input

AttentionFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q (batch, queries, heads, head width), k and v (batch, tokens, heads, head width) → the shape of q."""

SHORT_SEQUENCE = 32
"""Queries up to which a CPU is quicker with the products written out than with torch's blocked kernel."""


def attention_function(
    name: str, device: torch.device, dtype: torch.dtype = torch.bfloat16, head_width: int = 64
) -> AttentionFunction:
    """'auto', 'sdpa' or 'xformers' → the function; 'auto' takes xFormers where it runs, forward and backward, on such
    a device, with such a type and width of a head."""
    if name == "sdpa":
        return _sdpa
    if name not in ("auto", "xformers"):
        raise InvalidInput(f"attention {name!r} is not known: choose auto, sdpa or xformers")
    reason = _failure(device.type, dtype, head_width) if device.type == "cuda" else "it needs a CUDA device"
    if not reason:
        return _xformers
    if name == "xformers":
        raise InvalidInput(
            f"attention xformers does not run here in {dtype} with heads of width {head_width} ({reason}): "
            "choose auto or sdpa"
        )
    return _sdpa


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if q.device.type == "cpu" and q.shape[2] <= SHORT_SEQUENCE:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        return (scores.softmax(dim=-1) @ v).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def _xformers(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    from xformers.ops import memory_efficient_attention

    return memory_efficient_attention(q, k, v)


@functools.cache
def _failure(device_type: str, dtype: torch.dtype, head_width: int) -> str:
    """Empty if a tiny forward and backward pass of xFormers works, else why not."""
    try:
        with torch.enable_grad():
            probe = torch.zeros(1, 8, 1, head_width, dtype=dtype, device=device_type, requires_grad=True)
            _xformers(probe, probe, probe).sum().backward()
    except (ImportError, NotImplementedError, RuntimeError, ValueError) as error:
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ""


class QueriesKeysValues(nn.Linear):
    """q, k and v of tokens, by one matrix."""

    def forward(self, x: Tensor, read: int | None = None) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """(batch, tokens, width) → three of that shape; with `read`, q is of that many first tokens only."""
        if read is None:
            q, k, v = super().forward(x).chunk(3, dim=-1)
        else:
            for_q, for_k_and_v = self.weight.tensor_split([x.shape[-1]])
            q = F.linear(x[:, :read], for_q)
            k, v = F.linear(x, for_k_and_v).chunk(2, dim=-1)
        return q, k, v


class Attention(nn.Module):
    """Multi-head self-attention without q/k/v bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = QueriesKeysValues(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.attend: AttentionFunction = _sdpa

    def forward(self, x: Tensor, norm: Callable[[Tensor], Tensor] = nn.Identity(), read: int | None = None) -> Tensor:
        """Of norm(x): (batch, tokens, width) → the same shape, or its first `read` tokens: what they read from all."""
        parts = keeping_its_input(lambda x: self.qkv(norm(x), read), x)
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in parts)
        return self.proj(self.attend(q, k, v).flatten(2))


def use_attention(module: nn.Module, name: str, device: torch.device, precision: str | None = None) -> None:
    """Let every Attention within `module` use the named function.

    `precision` is what it computes in, fp32 or bf16: by default what the module has as its `precision`, else fp32.
    """
    dtype = torch.bfloat16 if (precision or getattr(module, "precision", "fp32")) == "bf16" else torch.float32
    for part in module.modules():
        if isinstance(part, Attention):
            part.attend = attention_function(name, device, dtype, part.proj.in_features // part.heads)
