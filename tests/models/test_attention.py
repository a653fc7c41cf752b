"""Attention is plain softmax attention over tokens, by whichever kernel."""

import math

import pytest
import torch

from rrcm_dist.errors import InvalidInput
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
