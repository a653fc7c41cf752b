"""The encoder: sizes of METHOD's table, MoCo-v3 initialisation, tokens, and what is computed of noise levels."""

import math

import pytest
import torch
import torch.nn.functional as F

from rrcm_dist.config.load import load_recipe
from rrcm_dist.config.parts import EncoderConfig
from rrcm_dist.models.encoder import Encoder, PatchEmbedding
from rrcm_dist.noise import sinusoidal_embedding, time_condition

SMALL = EncoderConfig(image_size=32, patch=8, width=64, depth=3, heads=4, initialization="moco_v3")


@pytest.mark.parametrize(("recipe", "millions"), [("imagenet/pretrain-s", 19.4), ("imagenet/pretrain-b", 85.8)])
def test_encoders_have_the_published_number_of_parameters(recipe, millions):
    encoder = Encoder(load_recipe(recipe, kind="pretrain").encoder, 0.5)
    assert round(sum(p.numel() for p in encoder.parameters()) / 1e6, 1) == millions


def assert_uniform(tensor, bound):
    """All of it within ±bound, close to both ends, with its variance (to 6 standard errors)."""
    assert tensor.abs().max() <= bound
    assert tensor.max() > 0.95 * bound
    assert tensor.min() < -0.95 * bound
    variance, expected = tensor.var().item(), bound**2 / 3
    assert abs(variance / expected - 1) < 6 * math.sqrt(0.8 / tensor.numel())


def test_moco_v3_initialisation_is_uniform_by_fan_in_and_fan_out():
    encoder = Encoder(SMALL, 0.5)
    for block in encoder.blocks:
        for part in block.attn.qkv.weight.chunk(3):
            assert_uniform(part, math.sqrt(6 / (64 + 64)))
        assert_uniform(block.attn.proj.weight, math.sqrt(6 / (64 + 64)))
        assert_uniform(block.mlp.fc1.weight, math.sqrt(6 / (64 + 256)))
        assert_uniform(block.mlp.fc2.weight, math.sqrt(6 / (64 + 256)))
        for layer in (block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            assert not layer.bias.any()
    assert_uniform(encoder.patch_embed.proj.weight, math.sqrt(6 / (3 * 8 * 8 + 64)))
    assert not encoder.patch_embed.proj.bias.any()
    assert 0.5e-6 < encoder.cls_token.std() < 1.5e-6
    assert 0.018 < encoder.pos_embed.std() < 0.022


def test_attention_has_no_qkv_bias_and_blocks_start_different():
    encoder = Encoder(SMALL, 0.5)
    assert encoder.blocks[0].attn.qkv.bias is None
    assert not torch.equal(encoder.blocks[0].attn.qkv.weight, encoder.blocks[1].attn.qkv.weight)


def test_the_initialisation_follows_from_the_seed_and_leaves_torchs_random_state_alone():
    torch.manual_seed(1)
    expected_draw = torch.rand(1)
    torch.manual_seed(1)
    first = Encoder(SMALL, 0.5, seed=3).state_dict()
    assert torch.equal(torch.rand(1), expected_draw)
    torch.manual_seed(2)
    again, other = Encoder(SMALL, 0.5, seed=3).state_dict(), Encoder(SMALL, 0.5, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["pos_embed"], other["pos_embed"])


def test_a_frozen_patch_embedding_gets_no_gradient_and_all_else_does():
    frozen = Encoder(SMALL.model_copy(update={"freeze_patch_embedding": True}), 0.5)
    frozen(torch.randn(2, 3, 32, 32), torch.tensor([0.5, 1.0])).square().sum().backward()
    without = {name for name, parameter in frozen.named_parameters() if parameter.grad is None}
    assert without == {"patch_embed.proj.weight", "patch_embed.proj.bias"}


def test_the_patch_embedding_is_the_convolution_it_is_stored_as():
    embedding, images = PatchEmbedding(8, 64), torch.randn(2, 3, 24, 32)
    torch.testing.assert_close(
        embedding(images), embedding.proj(images).flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5
    )


def test_the_time_embedding_is_cosines_then_sines():
    t = torch.tensor([0.002, 1.0, 80.0])
    embedded = sinusoidal_embedding(time_condition(t), 6)
    for row, level in zip(embedded.tolist(), t.tolist(), strict=True):
        angles = [250 * math.log(level) / 10000 ** (i / 3) for i in range(3)]
        assert row == pytest.approx([*map(math.cos, angles), *map(math.sin, angles)], abs=2e-4)


def test_the_final_norm_can_be_left_out():
    encoder, images, t = Encoder(SMALL, 0.5).eval(), torch.randn(2, 3, 32, 32), torch.tensor([0.5, 1.0])
    plain = encoder(images, t, final_norm=False)
    torch.testing.assert_close(encoder(images, t), F.layer_norm(plain, (64,)))


def test_images_of_a_batch_do_not_see_each_other():
    encoder, images = Encoder(SMALL, 0.5).eval(), torch.randn(3, 3, 32, 32)
    t = torch.tensor([0.5, 1.0, 2.0])
    with torch.no_grad():
        together = encoder(images, t)
        for i in range(3):
            torch.testing.assert_close(
                together[i : i + 1], encoder(images[i : i + 1], t[i : i + 1]), rtol=1e-4, atol=1e-5
            )


def test_the_last_block_makes_of_the_class_token_what_a_whole_block_would():
    block, tokens = Encoder(SMALL, 0.5).blocks[-1], torch.randn(3, 18, 64)
    short = block(tokens, read=1)
    assert short.shape == (3, 1, 64)
    torch.testing.assert_close(short, block(tokens)[:, :1], rtol=1e-5, atol=1e-6)
