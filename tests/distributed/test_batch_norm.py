"""Batch norm over the global batch is torch's on the whole batch: outputs, gradients, running statistics."""

from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from torch import nn

from rrcm_dist.distributed.batch_norm import GlobalBatchNorm
from rrcm_dist.distributed.world import join_world
from rrcm_dist.random_streams import NormalStream, Purpose

VIEWS, ROWS, FEATURES, STEPS = 2, 12, 5, 3
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def numbers(name: str, *shape: int) -> torch.Tensor:
    return NormalStream(torch.device("cpu"), Purpose.EVALUATION_NOISE, name).draw(*shape)


def inputs() -> torch.Tensor:
    """(steps, views, rows, features), far from zero in some features, as where cancellation would show."""
    return numbers("x", STEPS, VIEWS, ROWS, FEATURES) * 0.5 + torch.tensor([0.0, 1.0, -3.0, 10.0, 30.0])


def affine(norm: nn.Module) -> nn.Module:
    with torch.no_grad():
        norm.weight.copy_(1 + 0.1 * numbers("weight", FEATURES))
        norm.bias.copy_(numbers("bias", FEATURES))
    return norm


def whole_batch():
    """torch's BatchNorm1d view by view: outputs, gradients of input and parameters, buffers."""
    norm = affine(nn.BatchNorm1d(FEATURES))
    x = inputs().requires_grad_(True)
    outputs = torch.stack([torch.stack([norm(view) for view in step]) for step in x])
    (outputs * numbers("weights of the loss", *outputs.shape)).mean().backward()
    return outputs.detach(), x.grad, norm


def part_of_a_rank():
    with join_world("cpu") as world:
        norm = affine(GlobalBatchNorm(FEATURES))
        rows = slice(world.rank * ROWS // world.size, (world.rank + 1) * ROWS // world.size)
        x = inputs()[:, :, rows].requires_grad_(True)
        outputs = torch.stack([norm(step) for step in x])
        # A rank's loss is its own mean; the engine averages the parameters' gradients over ranks.
        (outputs * numbers("weights of the loss", STEPS, VIEWS, ROWS, FEATURES)[:, :, rows]).mean().backward()
        gradients = [norm.weight.grad, norm.bias.grad]
        return outputs.detach(), x.grad / world.size, gradients, norm.state_dict()


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_training_is_that_of_torch_on_the_whole_batch(ranks, tmp_path):
    outputs, x_gradient, norm = whole_batch()
    results = run_ranks(part_of_a_rank, ranks, tmp_path) if ranks > 1 else [part_of_a_rank()]
    torch.testing.assert_close(torch.cat([r[0] for r in results], dim=2), outputs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat([r[1] for r in results], dim=2), x_gradient, **CLOSE)
    for which, expected in enumerate([norm.weight.grad, norm.bias.grad]):
        torch.testing.assert_close(torch.stack([r[2][which] for r in results]).mean(dim=0), expected, **CLOSE)
    for result in results:
        assert result[3].keys() == norm.state_dict().keys()
        for name, expected in norm.state_dict().items():
            torch.testing.assert_close(result[3][name], expected, **CLOSE, msg=lambda m, name=name: f"{name}: {m}")


def test_evaluation_uses_the_running_statistics_and_leaves_them_alone():
    _, _, torchs = whole_batch()
    ours = GlobalBatchNorm(FEATURES)
    ours.load_state_dict(torchs.state_dict())
    ours.eval(), torchs.eval()
    x = inputs()[0]
    torch.testing.assert_close(ours(x), torch.stack([torchs(view) for view in x]), **CLOSE)
    assert all(ours.state_dict()[name].equal(value) for name, value in torchs.state_dict().items())
    assert ours(x[:, :1]).equal(ours(x)[:, :1]), "a row does not depend on the others"


def test_half_precision_inputs_are_normalised_in_float32():
    norm = GlobalBatchNorm(FEATURES)
    x = inputs()[0].bfloat16()
    assert norm(x).dtype == torch.float32
    torch.testing.assert_close(norm(x), GlobalBatchNorm(FEATURES)(x.float()))


def test_one_row_has_no_statistics():
    with pytest.raises(ValueError, match="at least two rows"):
        GlobalBatchNorm(FEATURES)(torch.zeros(VIEWS, 1, FEATURES))


def one_row_each():
    with join_world("cpu"):
        return GlobalBatchNorm(FEATURES)(torch.zeros(VIEWS, 1, FEATURES)).shape


@pytest.mark.distributed
def test_one_row_on_each_of_two_ranks_is_a_batch_of_two(tmp_path: Path):
    assert run_ranks(one_row_each, 2, tmp_path) == [(VIEWS, 1, FEATURES)] * 2
