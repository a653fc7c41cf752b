"""The few things ranks say to each other. Without a process group, or alone in it, each is the identity.

Gradient convention of the project: a rank's loss is the mean over its own rows, and the engine averages gradients over
ranks. `sum_over_ranks` is differentiable and sums in backward, which under that convention is exact for any function of
the whole batch; gathers carry no gradient.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rrcm_dist.distributed.waiting import GATHERS
from rrcm_dist.errors import RunFailure

_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
"""Equal tensors of all ranks into one; torch 2.13 has a new name for it."""


def ranks() -> int:
    """Number of ranks in the process group; 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own_rank() -> int:
    """This process's rank; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def gather_over_ranks(rows: Tensor) -> Tensor:
    """(n, …) on every rank, equal n → (n · ranks, …) in the order of ranks, detached."""
    rows = rows.detach().contiguous()
    if ranks() == 1:
        return rows
    gathered = rows.new_empty((ranks() * rows.shape[0], *rows.shape[1:]))
    _all_gather(gathered, rows)
    return gathered


class Gathering:
    """Equal rows of all ranks on their way into one tensor, beside whatever is computed meanwhile."""

    def __init__(self, rows: Tensor) -> None:
        """Begin; rows are (n, …), equal n on every rank, and carry no gradient. Every rank must do it."""
        self._rows = rows.detach().contiguous()  # held until the others have it
        self._gathered, self._work = self._rows, None
        if ranks() > 1:
            self._gathered = rows.new_empty((ranks() * rows.shape[0], *rows.shape[1:]))
            self._work = _all_gather(self._gathered, self._rows, async_op=True)

    def wait(self) -> Tensor:
        """(n · ranks, …) in the order of ranks; on CUDA it is the stream that waits, and not the host."""
        if self._work is not None:
            with GATHERS.timed(self._gathered.device):
                self._work.wait()
            self._work = None
        return self._gathered


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum of `tensor` over ranks; gradients are summed over ranks, too."""
    return tensor if ranks() == 1 else _SumOverRanks.apply(tensor)


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def agree(value: Any) -> Any:
    """Rank 0's picklable `value`, on every rank."""
    if ranks() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_objects(value: Any) -> list[Any]:
    """Every rank's picklable `value`, in the order of ranks."""
    values = [value] * ranks()
    if ranks() > 1:
        dist.all_gather_object(values, value)
    return values


def first_problem(problem: str) -> str:
    """Every rank says what is wrong with it, or ''; all get the first that is not empty, with its rank."""
    if ranks() == 1:
        return problem
    return next((f"rank {rank}: {text}" for rank, text in enumerate(gather_objects(problem)) if text), "")


def raise_together(check: Callable[[], None], on_this_rank: bool = True) -> None:
    """Call `check` where it is to be called; if it raises on any rank, raise there as it is and elsewhere in words."""
    problem: Exception | None = None
    if on_this_rank:
        try:
            check()
        except Exception as error:  # of whatever kind: the others wait for what this rank says
            problem = error
    elsewhere = first_problem(str(problem) or type(problem).__name__ if problem else "")
    if problem:
        raise problem
    if elsewhere:
        raise RunFailure(elsewhere)
