"""Attention is plain softmax attention over tokens, by whichever kernel."""

import math

import pytest
import torch

from rrcm_dist.errors import InvalidInput
from rrcm_dist.models import attention
from rrcm_dist.models.attention import Attention, attention_function, use_attention


def softmax_attention(q, k, v):
    """(batch, tokens, heads, width), by the definition: softmax(q kᵀ / √width) v over tokens, in float64."""
    q, k, v = (x.double() for x in (q, k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)


def test_sdpa_is_softmax_attention_over_tokens():
    q, k, v = torch.randn(3, 2, 11, 4, 8).unbind(0)
    out = attention_function("sdpa", torch.device("cpu"))(q, k, v)
    torch.testing.assert_close(out.double(), softmax_attention(q, k, v), rtol=1e-5, atol=1e-6)


def test_the_layer_splits_its_projection_into_q_k_and_v_by_head():
    layer, x = Attention(12, 3), torch.randn(2, 5, 12)
    q, k, v = (x @ part.T for part in layer.qkv.weight.chunk(3))
    heads = softmax_attention(*(y.view(2, 5, 3, 4) for y in (q, k, v))).reshape(2, 5, 12).float()
    torch.testing.assert_close(layer(x), layer.proj(heads), rtol=1e-4, atol=1e-5)


def test_auto_is_sdpa_where_there_is_no_gpu():
    cpu = torch.device("cpu")
    assert attention_function("auto", cpu) is attention_function("sdpa", cpu)


def test_a_kernel_that_does_not_run_here_or_is_not_known_is_refused():
    with pytest.raises(InvalidInput, match="it needs a CUDA device"):
        attention_function("xformers", torch.device("cpu"))
    with pytest.raises(InvalidInput, match="choose auto, sdpa or xformers"):
        attention_function("flash", torch.device("cpu"))


class NoBackward(torch.autograd.Function):
    """A kernel whose backward pass is missing for the case at hand."""

    @staticmethod
    def forward(ctx, q, k, v):
        return q.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise NotImplementedError("no backward for this case")


def refuses_fp32(q, k, v):
    if q.dtype == torch.float32:
        raise NotImplementedError("no kernel for float32")
    return q + k + v


def refuses_wide_heads(q, k, v):
    if q.shape[-1] > 128:
        raise ValueError("head width above 128")
    return q + k + v


@pytest.mark.parametrize(("kernel", "dtype", "head_width", "told"), [
    (NoBackward.apply, torch.bfloat16, 64, "no backward for this case"),
    (refuses_fp32, torch.float32, 64, "no kernel for float32"),
    (refuses_fp32, torch.bfloat16, 64, ""),
    (refuses_wide_heads, torch.bfloat16, 192, "head width above 128"),
    (refuses_wide_heads, torch.bfloat16, 128, ""),
])  # fmt: skip
def test_a_kernel_is_tried_forward_and_backward_in_its_type_and_width(monkeypatch, kernel, dtype, head_width, told):
    monkeypatch.setattr(attention, "_xformers", kernel)
    attention._failure.cache_clear()
    with torch.no_grad():
        assert attention._failure("cpu", dtype, head_width) == told
    attention._failure.cache_clear()


def test_layers_are_tried_in_the_precision_and_width_of_their_network(monkeypatch):
    asked = []
    monkeypatch.setattr(
        attention, "attention_function", lambda *case: asked.append(case[2:]) or attention_function("sdpa", case[1])
    )
    network, cpu = torch.nn.Sequential(Attention(96, 2)), torch.device("cpu")
    use_attention(network, "auto", cpu)
    network.precision = "bf16"
    use_attention(network, "auto", cpu)
    use_attention(network, "auto", cpu, "fp32")
    assert asked == [(torch.float32, 48), (torch.bfloat16, 48), (torch.float32, 48)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="xFormers needs a GPU")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_xformers_gives_the_numbers_of_sdpa(dtype, tolerance):
    pytest.importorskip("xformers")
    device = torch.device("cuda")
    q, k, v = torch.randn(3, 2, 198, 12, 64, dtype=dtype, device=device).unbind(0)
    ours, plain = (attention_function(name, device)(q, k, v) for name in ("xformers", "sdpa"))
    torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance)


def test_use_attention_reaches_every_layer():
    calls = []
    network = torch.nn.Sequential(Attention(8, 2), torch.nn.Sequential(Attention(8, 2)))
    for layer in network.modules():
        if isinstance(layer, Attention):
            layer.attend = lambda q, k, v: calls.append(1) or v
    network(torch.randn(1, 3, 8))
    assert len(calls) == 2
    use_attention(network, "sdpa", torch.device("cpu"))
    network(torch.randn(1, 3, 8))
    assert len(calls) == 2
