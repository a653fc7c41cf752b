"""Counts what is given to torch.distributed's collectives, whoever calls them: our code and DeepSpeed's alike."""

from collections import Counter
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Payloads(TorchDispatchMode):
    """Within, `sizes` gathers bytes by operation of c10d: the largest side of a call, the whole of what is exchanged.

    An all-reduce counts its tensor, a gather its output, a reduce-scatter its input.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sizes: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        if function.namespace == "c10d":
            name = function.overloadpacket.__name__.strip("_")
            self.calls[name] += 1
            sides = [sum(t.numel() * t.element_size() for t in _tensors(side)) for side in arguments]
            self.sizes[name] += max(sides, default=0)
        return function(*arguments, **(named or {}))


def _tensors(side: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(side) if isinstance(leaf, Tensor)]


RING_SHARES = {"allreduce": 2, "allgather_base": 1, "reduce_scatter_base": 1, "broadcast": 1}
"""What a rank sends in a ring, in multiples of (R - 1)/R times the size."""


def sent_by_rings(sizes: dict[str, float], ranks: int) -> float:
    """Bytes that one rank sends if collectives with payloads of these sizes go round rings."""
    return sum(RING_SHARES[name] * size * (ranks - 1) / ranks for name, size in sizes.items())
