"""Alignment is the mean negative cosine per token, of every image."""

import pytest
import torch

from rrcm_dist.warmup.alignment import AlignmentHead, alignment_loss, term_weight


def test_the_loss_is_the_mean_negative_cosine_over_an_images_tokens():
    ours, theirs = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]), torch.tensor([[[3.0, 0.0], [4.0, 0.0]]])
    torch.testing.assert_close(alignment_loss(ours, theirs), torch.tensor([-0.5]))


def test_every_image_of_the_batch_has_its_gradient():
    head = AlignmentHead(8, 16, 6, seed=0)
    tokens = torch.randn(1, 5, 6, 8, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    head(tokens, torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(1))).mean().backward()
    of_patches = tokens.grad[0, :, 2:]
    assert (of_patches.abs().amax(dim=2) > 0).all(), "every image and every patch"
    assert not tokens.grad[0, :, :2].any(), "the class and the time token are not aligned"


def test_only_the_named_view_is_aligned():
    head = AlignmentHead(8, 16, 6, seed=0, view=2)
    tokens = torch.randn(3, 5, 6, 8).requires_grad_(True)
    head(tokens, torch.randn(5, 4, 6)).sum().backward()
    assert [bool(view.any()) for view in tokens.grad] == [False, False, True]


def test_the_weight_halves():
    assert term_weight(6.0, 50_000, 0) == 6.0
    assert term_weight(6.0, 50_000, 100_000) == pytest.approx(1.5)


def test_heads_begin_the_same_whatever_was_drawn_before():
    first = AlignmentHead(8, 16, 6, seed=3)
    torch.rand(7)
    second = AlignmentHead(8, 16, 6, seed=3)
    assert all(torch.equal(*pair) for pair in zip(first.parameters(), second.parameters(), strict=True))
