"""Loss and gradients of one step: of an engine, of one plain process, and what it takes for them to be the same."""

from pathlib import Path

import torch
from plain_pretraining import batches_and_noise, loss_of, networks
from tiny import pretrain_recipe

STEP = 3


def gradients_of(training, world):
    """Loss (mean over ranks) and whole averaged gradients of one step, by parameter name."""
    from deepspeed.utils import safe_get_full_grad

    batch = next(iter(training.batches(STEP)))
    parts = training.step.backward(batch, STEP)
    loss = parts["loss"].detach().clone()
    torch.distributed.all_reduce(loss)
    gradients = {}
    for name, parameter in training.step.engine.network.named_parameters():
        whole = parameter.grad if training.step.engine.stage == 0 else safe_get_full_grad(parameter)
        gradients[name] = whole.detach().clone()
    return loss / world.size, gradients


def one_process_reference(shards: Path):
    """The step written out plainly: no engine, no ranks, no micro-batches."""
    recipe = pretrain_recipe(shards, Path("unused"))
    online, target = networks(recipe)
    batch, z = batches_and_noise(recipe, STEP)[0]
    loss = loss_of(recipe, online, target, batch, z, STEP)
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in online.named_parameters()}


def assert_same(found, expected, relative=1e-5):
    (loss, gradients), (expected_loss, expected_gradients) = found, expected
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=0)
    assert gradients.keys() == expected_gradients.keys()
    largest = max(float(g.abs().max()) for g in expected_gradients.values())
    for name, gradient in gradients.items():
        difference = float((gradient - expected_gradients[name]).abs().max())
        scale = float(expected_gradients[name].abs().max())
        assert difference <= relative * max(scale, 1e-3 * largest), f"{name}: {difference} of {scale}"
