import pytest
import torch
import torch.nn.functional as F

from rrcm_dist.negatives import columns as columns_module
from rrcm_dist.negatives.columns import columns
from rrcm_dist.negatives.guard import Guard
from rrcm_dist.negatives.ranking import NONE
from rrcm_dist.objectives.contrastive import Negatives, nce_loss

ROWS, EACH, WIDTH = 4, 3, 8


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(ROWS, WIDTH, generator=generator), torch.randn(ROWS, EACH, WIDTH, generator=generator)
    return queries, torch.arange(ROWS), keys, torch.arange(10, 10 + ROWS * EACH).view(ROWS, EACH)


def no_limit() -> torch.Tensor:
    return Guard().limit(torch.ones(ROWS))


@pytest.mark.parametrize("logits_at_a_time", [1, 2**24])
def test_own_samples_missing_ones_unvisited_ones_and_those_too_alike_are_banned(batch, logits_at_a_time, monkeypatch):
    monkeypatch.setattr(columns_module, "LOGITS_AT_A_TIME", logits_at_a_time)
    queries, ids, keys, key_ids = batch
    key_ids[0, 1], key_ids[2, 0], keys[3, 2], keys[1, 1] = 3, NONE, 0.0, queries[2]
    found = columns(queries, ids, Guard(ceiling=0.99).limit(torch.ones(ROWS)), keys, key_ids)
    expected = torch.zeros(ROWS, ROWS * EACH, dtype=torch.bool)
    expected[3, 1] = expected[2, 1 * EACH + 1] = True
    expected[:, 2 * EACH] = expected[:, 3 * EACH + 2] = True
    assert found.banned.equal(expected)
    assert float(found.banned_share) == pytest.approx(10 / 48)
    cosines = F.normalize(queries, dim=1) @ F.normalize(keys.flatten(0, 1), dim=1).T
    torch.testing.assert_close(found.cosine, cosines[~expected].mean())


def test_a_query_that_takes_its_own_negatives_alone_sees_no_others(batch):
    queries, ids, keys, key_ids = batch
    found = columns(queries[2:], ids[2:], no_limit()[2:], keys, key_ids, own=slice(2, 4))
    assert found.keys.equal(keys[2:].flatten(0, 1))
    assert (~found.banned).tolist() == [[True] * EACH + [False] * EACH, [False] * EACH + [True] * EACH]
    assert float(found.banned_share) == 0


def test_the_guard_follows_the_querys_own_two_views():
    limits = Guard(ceiling=0.5, of_agreement=0.8).limit(torch.tensor([0.9, 0.25, -0.5]))
    torch.testing.assert_close(limits, torch.tensor([0.5, 0.2, -0.4]))


def test_the_contrastive_loss_with_columns_is_the_formula_written_out(batch):
    queries, ids, negatives, key_ids = (value.double() if value.is_floating_point() else value for value in batch)
    keys = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    key_ids[1, 0] = 2
    queries = queries.float().requires_grad_(True)
    found = columns(queries, ids, no_limit(), negatives, key_ids)
    losses = nce_loss(queries, keys, 0, 0.2, Negatives(found.keys, found.banned))
    losses.sum().backward()
    exact = queries.detach().double().requires_grad_(True)
    expected = []
    for row, query in enumerate(exact):
        logits = [F.cosine_similarity(query, key, dim=0) / 0.2 for key in keys]
        others = zip(negatives.flatten(0, 1), key_ids.flatten().tolist(), strict=True)
        logits += [F.cosine_similarity(query, key, dim=0) / 0.2 for key, sample in others if sample != row]
        expected.append(torch.logsumexp(torch.stack(logits), dim=0) - logits[row])
    torch.stack(expected).sum().backward()
    torch.testing.assert_close(losses.double(), torch.stack(expected), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(queries.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)
