"""Pre-training written out plainly, in one process: torch's batch norm, autograd and AdamW, every pass one by one."""

import copy

import torch
from torch import Tensor, nn
from trajectories import PlainRun, set_learning_rate, state_of

from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.data.batches import PretrainingBatch
from rrcm_dist.data.photometric import apply_photometric
from rrcm_dist.distributed.batch_norm import GlobalBatchNorm
from rrcm_dist.distributed.world import join_world
from rrcm_dist.models.rrcm import PretrainingNetwork
from rrcm_dist.noise import grid
from rrcm_dist.objectives.contrastive import nce_loss
from rrcm_dist.random_streams import Purpose, numpy_generator
from rrcm_dist.schedules import grid_points, target_rate
from rrcm_dist.training.noise_draws import training_noise
from rrcm_dist.training.pretraining import prepare_pretraining


def networks(recipe: PretrainConfig) -> tuple[nn.Module, nn.Module]:
    """Online and target network at the start, with torch's batch norm in the projector."""
    online = PretrainingNetwork(recipe.encoder, recipe.projector, recipe.noise, recipe.seed)
    online.projector = nn.Sequential(*map(_with_torchs_batch_norm, online.projector))
    return online, copy.deepcopy(online).requires_grad_(False)


def batches_and_noise(recipe: PretrainConfig, first_step: int) -> list[tuple[PretrainingBatch, Tensor]]:
    """The global batches from `first_step` on, each with its noise tensor."""
    with join_world("cpu") as world:
        batches = prepare_pretraining(recipe, world).batches(first_step)
        return [
            (batch, training_noise(recipe, world, step, batch.plain.shape))
            for step, batch in enumerate(batches, start=first_step)
        ]


def loss_of(
    recipe: PretrainConfig, online: nn.Module, target: nn.Module, batch: PretrainingBatch, z: Tensor, step: int
) -> Tensor:
    """The loss of one step's global batch, with graph."""
    levels = grid(recipe.noise, grid_points(step, recipe.training.steps, recipe.noise))
    index = numpy_generator(Purpose.NOISE_LEVEL, recipe.seed, step).integers(len(levels) - 1)
    a = apply_photometric(batch.view_a, batch.photometric_a)
    b = apply_photometric(batch.view_b, batch.photometric_b)
    x = batch.plain.float() / 127.5 - 1

    def represent(network: nn.Module, images: Tensor, t: float) -> Tensor:
        return network.encoder(images + float(t) * z, torch.full((len(z),), float(t)))

    def project(network: nn.Module, images: Tensor) -> Tensor:
        return network.projector(represent(network, images, levels[-1]))

    with torch.no_grad():
        target_a, target_b = project(target, a), project(target, b)
        less_noisy = represent(online, x, levels[index + 1])
    return (
        nce_loss(project(online, a), target_b, 0, recipe.temperature)
        + nce_loss(project(online, b), target_a, 0, recipe.temperature)
        + nce_loss(represent(online, x, levels[index]), less_noisy, 0, recipe.temperature)
    ).mean()


def plain_run(recipe: PretrainConfig, eps: float) -> PlainRun:
    """Pre-train with torch.optim.AdamW, clip_grad_norm_ after the warm-up, and an average parameter by parameter."""
    online, target = networks(recipe)
    run = PlainRun(state_of(online=online, target=target))
    settings = recipe.optimizer
    optimizer = torch.optim.AdamW(
        online.parameters(), betas=settings.betas, eps=eps, weight_decay=settings.weight_decay
    )
    for step, (batch, z) in enumerate(batches_and_noise(recipe, 0)):
        set_learning_rate(optimizer, step, recipe, settings.warmup)
        loss = loss_of(recipe, online, target, batch, z, step)
        run.step(optimizer, loss, settings.clip if step >= settings.warmup else None)
        rate = target_rate(step, recipe.training.steps, recipe.target)
        with torch.no_grad():
            for average, parameter in zip(target.parameters(), online.parameters(), strict=True):
                average.mul_(rate).add_(parameter, alpha=1 - rate)
    run.end = state_of(online=online, target=target)
    return run


def _with_torchs_batch_norm(layer: nn.Module) -> nn.Module:
    return nn.BatchNorm1d(layer.weight.shape[0]) if isinstance(layer, GlobalBatchNorm) else layer
