"""The batch balance loss beside formulae written out by hand in float64, on one rank and on several."""

import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from ranks import run_ranks

from rrcm_dist.distributed.world import join_world
from rrcm_dist.errors import InvalidInput
from rrcm_dist.objectives.batch_balance import GradedPairs, batch_balance_loss, cosent_loss

TAU = 0.1
ROWS, NEGATIVES, PAIRS, WIDTH = 3, 4, 5, 8


def by_hand(queries, positives, negatives, first, second, grades, beta=0.8):
    """Loops over queries and over pairs of pairs, as the paper writes it; float64."""
    contrastive = 0.0
    for query, positive in zip(queries, positives, strict=True):
        top = math.exp(F.cosine_similarity(query, positive, dim=0) / TAU)
        others = [math.exp(F.cosine_similarity(query, negative, dim=0) / TAU) for negative in negatives]
        contrastive -= math.log(top / (top + sum(others)))
    cosines = [float(F.cosine_similarity(a, b, dim=0)) for a, b in zip(first, second, strict=True)]
    ordinal = 1.0
    for upper, upper_grade in zip(cosines, grades.tolist(), strict=True):
        for lower, lower_grade in zip(cosines, grades.tolist(), strict=True):
            if upper_grade > lower_grade:
                ordinal += math.exp((lower - upper) / TAU)
    return contrastive / len(queries), math.log(ordinal), contrastive / len(queries) + beta * math.log(ordinal)


def tensors(ranks: int, dtype=torch.float64):
    """Of all ranks, in their order: queries, positives, negatives (rank, n, k, D), pairs, grades with ties."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    grades = torch.randint(4, (ranks * PAIRS,), generator=generator)
    rows, pairs = ranks * ROWS, ranks * PAIRS
    return (
        normal(rows, WIDTH),
        normal(rows, WIDTH),
        normal(rows, NEGATIVES, WIDTH),
        normal(pairs, WIDTH),
        normal(pairs, WIDTH),
        grades,
    )


def loss_of(queries, positives, negatives, first, second, grades):
    return batch_balance_loss(queries, positives, negatives, GradedPairs(first, second, grades), TAU)


def test_both_parts_are_the_published_formulae():
    given = tensors(1)
    loss = loss_of(*given)
    expected = by_hand(given[0], given[1], given[2].reshape(-1, WIDTH), *given[3:])
    for found, number in zip((loss.contrastive, loss.ordinal, loss.total), expected, strict=True):
        assert float(found) == pytest.approx(number, rel=1e-12)


def test_gradients_agree_with_finite_differences():
    *given, grades = (tensor.requires_grad_(tensor.is_floating_point()) for tensor in tensors(1))
    torch.autograd.gradcheck(lambda *tensors: loss_of(*tensors, grades).total, tuple(given))


def loss_and_gradients_of_own_rows(folder: Path):
    with join_world("cpu") as world:
        own = [tensor.chunk(world.size)[world.rank].clone() for tensor in tensors(world.size, torch.float32)]
        for tensor in own[:-1]:
            tensor.requires_grad_(True)
        loss = loss_of(*own)
        loss.total.backward()
        return loss.total.detach(), [tensor.grad for tensor in own[:-1]]


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_loss_and_gradients_on_several_ranks_are_those_of_one_process_on_the_concatenation(ranks, tmp_path):
    whole = [tensor.clone() for tensor in tensors(ranks)]
    for tensor in whole[:-1]:
        tensor.requires_grad_(True)
    expected = loss_of(*whole).total
    expected.backward()
    found = run_ranks(loss_and_gradients_of_own_rows, ranks, tmp_path, tmp_path)
    loss = torch.stack([loss for loss, _ in found]).mean()
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=1e-5, atol=0)
    for position, tensor in enumerate(whole[:-1]):
        gradient = torch.cat([gradients[position] for _, gradients in found]) / ranks
        torch.testing.assert_close(
            gradient.double(), tensor.grad, rtol=1e-5, atol=1e-5 * float(tensor.grad.abs().max())
        )


def test_pairs_of_one_grade_cost_nothing_and_have_no_gradient():
    first, second = (torch.randn(6, WIDTH).requires_grad_(True) for _ in range(2))
    loss = cosent_loss(GradedPairs(first, second, torch.ones(6)), TAU)
    loss.backward()
    assert float(loss) == 0
    assert not first.grad.any()


def test_a_million_pairs_need_no_matrix_of_pairs_by_pairs():
    pairs = 2**20
    first = torch.randn(pairs, 2, requires_grad=True)
    loss = cosent_loss(GradedPairs(first, torch.randn(pairs, 2), torch.arange(pairs)), 0.05)
    loss.backward()
    assert loss.isfinite()
    assert first.grad.isfinite().all()


def test_half_precision_inputs_meet_float32_cosines():
    given = [tensor.bfloat16() if tensor.is_floating_point() else tensor for tensor in tensors(1)]
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(*given)
    assert loss.total.dtype == torch.float32


@pytest.mark.parametrize(
    ("position", "shape", "told"),
    [
        (1, (2, WIDTH), "must both be"),
        (2, (ROWS, NEGATIVES, WIDTH + 1), "width"),
        (2, (ROWS + 1, NEGATIVES, WIDTH), "4 queries"),
        (4, (PAIRS - 1, WIDTH), "graded pairs"),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(position, shape, told):
    given = list(tensors(1))
    given[position] = torch.zeros(shape)
    with pytest.raises(InvalidInput, match=told):
        loss_of(*given)


def test_a_temperature_that_is_not_above_zero_is_refused():
    *given, first, second, grades = tensors(1)
    with pytest.raises(InvalidInput, match="temperature"):
        batch_balance_loss(*given, GradedPairs(first, second, grades), 0)


def test_the_example_in_the_documentation_runs():
    document = (Path(__file__).parents[2] / "docs" / "hard-negatives.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python$(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    names: dict = {}
    exec(example, names)
    assert names["loss"].total.isfinite()
    assert names["embed"].weight.grad.any()
