import pytest
import torch
import torch.nn.functional as F

from rrcm_dist.objectives import contrastive
from rrcm_dist.objectives.contrastive import nce_loss


def whole_matrix_loss(queries, keys, first_positive, temperature):
    """The same loss with all logits at once, differentiated by torch."""
    logits = F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T / temperature
    return F.cross_entropy(logits, first_positive + torch.arange(len(queries)), reduction="none")


@pytest.mark.parametrize("logits_at_a_time", [1, 100, 2**24])
def test_values_and_gradients_do_not_depend_on_how_many_rows_are_computed_at_a_time(logits_at_a_time, monkeypatch):
    monkeypatch.setattr(contrastive, "LOGITS_AT_A_TIME", logits_at_a_time)
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(20, 16, generator=generator, requires_grad=True)
    keys, weights = torch.randn(48, 16, generator=generator), torch.rand(20, generator=generator)
    losses, expected = nce_loss(queries, keys, 7, 0.2), whole_matrix_loss(queries, keys, 7, 0.2)
    torch.testing.assert_close(losses, expected, atol=1e-6, rtol=1e-6)
    (gradient,) = torch.autograd.grad((losses * weights).sum(), queries)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), queries)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-6, rtol=1e-6)


def test_a_loss_without_gradient_is_the_same_number():
    queries, keys = torch.randn(6, 8), torch.randn(12, 8)
    with torch.no_grad():
        told = nce_loss(queries, keys, 3, 0.1)
    torch.testing.assert_close(told, whole_matrix_loss(queries, keys, 3, 0.1))
    assert not told.requires_grad


def test_half_precision_queries_meet_float32_logits():
    queries = torch.randn(4, 8).bfloat16().requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        losses = nce_loss(queries, torch.randn(8, 8), 0, 0.2)
    losses.sum().backward()
    assert losses.dtype == torch.float32
    assert queries.grad.dtype == torch.bfloat16
