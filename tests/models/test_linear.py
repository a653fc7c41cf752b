"""Linear layers that keep less are the same functions."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from rrcm_dist.models.linear import LinearAfterGelu, keeping_its_input


def gradients(compute, x, layer, dtype):
    x = x.detach().clone().requires_grad_(True)
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        output = compute(x)
    (output.float() * torch.linspace(-1, 1, output.numel()).view(output.shape)).sum().backward()
    return [output.detach(), x.grad, layer.weight.grad.clone(), layer.bias.grad.clone()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_output_and_gradients_are_those_of_gelu_and_linear(dtype):
    generator = torch.Generator().manual_seed(0)
    layer, x = LinearAfterGelu(24, 7), torch.randn(3, 5, 24, generator=generator).to(dtype)
    found = gradients(layer, x, layer, dtype)
    expected = gradients(lambda x: F.linear(F.gelu(x), layer.weight, layer.bias), x, layer, dtype)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        scale = float(other.float().abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=scale * (1e-6 if dtype == torch.float32 else 1e-2))


def test_gelus_output_is_not_kept_for_the_backward_pass():
    kept = []
    layer, x = LinearAfterGelu(24, 7), torch.randn(5, 24, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x)
    assert sorted(t.shape for t in kept) == sorted([x.shape, layer.weight.shape])


class MatrixProducts(TorchDispatchMode):
    """Counts them."""

    count = 0

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        self.count += operation in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return operation(*arguments, **(named or {}))


def test_a_norm_before_a_linear_layer_is_computed_again_and_the_product_is_not(monkeypatch):
    # DeepSpeed's ZeRO stage 3, once used in a process, leaves a function of its own there.
    monkeypatch.setattr(F, "linear", torch._C._nn.linear)
    norm, layer = torch.nn.LayerNorm(24), torch.nn.Linear(24, 7)
    x = torch.randn(5, 24, requires_grad=True)
    output = keeping_its_input(lambda x: layer(norm(x)), x)
    with MatrixProducts() as products:
        output.square().sum().backward()
    assert products.count == 2, "the gradients of input and weight take two"
    gradient, x.grad = x.grad, None
    layer(norm(x)).square().sum().backward()
    torch.testing.assert_close(gradient, x.grad)
