"""The batch balance loss beside others: on 1 to 4 ranks beside one process, CoSENT beside sentence-transformers'."""

from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import markdown_table
from benchmarks.ranks import finish, run_ranks
from rrcm_dist.distributed.world import join_world
from rrcm_dist.objectives.batch_balance import GradedPairs, batch_balance_loss, cosent_loss

ROWS, NEGATIVES, PAIRS, WIDTH, TAU = 24, 4, 60, 32, 0.05
"""ROWS and PAIRS of all ranks together; 1, 2, 3 and 4 ranks can share them."""


def identity_over_ranks() -> str:
    """Largest relative differences of loss and gradients from one process in float64, as a table."""
    loss, gradients = _loss_and_gradients(_tensors(torch.float64))
    rows = []
    for ranks in (1, 2, 3, 4):
        found = run_ranks("benchmarks.batch_balance", [], ranks)
        mean = sum(each["loss"] for each in found) / ranks
        worst = 0.0
        for position, expected in enumerate(gradients):
            whole = torch.cat([torch.tensor(each["gradients"][position]) for each in found]).double() / ranks
            worst = max(worst, float((whole - expected).abs().max() / expected.abs().max()))
        rows.append({"ranks": str(ranks), "loss": f"{abs(mean / loss - 1):.1e}", "gradients": f"{worst:.1e}"})
    title = "Batch balance loss in float32, largest relative difference from one process in float64:"
    return f"{title}\n\n{markdown_table(rows)}"


def beside_sentence_transformers() -> str:
    """CoSENT and its gradient beside sentence-transformers' own, where that can be imported."""
    try:
        from rrcm_dist.torchvision_compat import allow_cpu_torch

        allow_cpu_torch()
        import sentence_transformers
        from sentence_transformers.losses import CoSENTLoss
    except ImportError as error:
        return f"sentence-transformers' CoSENTLoss was not compared: {error}."
    first, second, grades = _tensors(torch.float64)[3:]
    ours, theirs = (first.clone().requires_grad_(True) for _ in range(2))
    own = cosent_loss(GradedPairs(ours, second, grades), TAU)
    own.backward()
    loss = CoSENTLoss(_Embedded(), scale=1 / TAU)
    other = loss([{"rows": theirs}, {"rows": second}], grades.double())
    other.backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    gradient = float((ours.grad - theirs.grad).abs().max() / theirs.grad.abs().max())
    version = sentence_transformers.__version__
    return (
        f"CoSENT beside that of sentence-transformers {version}, {PAIRS} pairs, float64: loss "
        f"{float(own.detach()):.6f} and {float(other.detach()):.6f}, relative difference "
        f"{abs(float(own.detach()) / float(other.detach()) - 1):.1e}, of the gradient {gradient:.1e}."
    )


class _Embedded(torch.nn.Module):
    """A model whose inputs are embeddings already."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["rows"]}


def _tensors(dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(ROWS, WIDTH), (ROWS, WIDTH), (ROWS, NEGATIVES, WIDTH), (PAIRS, WIDTH), (PAIRS, WIDTH)]
    tensors = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    return [*tensors, torch.randint(5, (PAIRS,), generator=generator)]


def _loss_and_gradients(tensors: list[Tensor]) -> tuple[float, list[Tensor]]:
    *given, grades = tensors
    queries, positives, negatives, first, second = (tensor.requires_grad_(True) for tensor in given)
    loss = batch_balance_loss(queries, positives, negatives, GradedPairs(first, second, grades), TAU).total
    loss.backward()
    return float(loss.detach()), [tensor.grad for tensor in given if tensor.grad is not None]


def _as_rank() -> dict[str, Any]:
    with join_world("cpu") as world:
        own = [tensor.chunk(world.size)[world.rank].clone() for tensor in _tensors(torch.float32)]
        loss, gradients = _loss_and_gradients(own)
    return {"loss": loss, "gradients": [gradient.tolist() for gradient in gradients]}


if __name__ == "__main__":
    finish(_as_rank())
