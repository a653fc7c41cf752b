"""A step of fine-tuning at one σ: several draws of noise per image, cross-entropy and consistency."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rrcm_dist.config.schema import FinetuneConfig
from rrcm_dist.data.batches import LabelledBatch
from rrcm_dist.data.mixing import mix
from rrcm_dist.distributed.world import World
from rrcm_dist.models.attention import use_attention
from rrcm_dist.models.encoder import run_blocks
from rrcm_dist.models.rrcm import FinetuningNetwork
from rrcm_dist.noise import conditioning_level, noise_level
from rrcm_dist.objectives.finetuning import finetuning_loss
from rrcm_dist.training.noise_draws import training_noise
from rrcm_dist.training.parameter_groups import layer_decay_groups
from rrcm_dist.training.starting_point import start_encoder
from rrcm_dist.training.zero.averages import WeightAverages
from rrcm_dist.training.zero.engine import Engine


class FinetuningStep:
    """The network that is fine-tuned, and what a step does to it."""

    trained = "model"

    def __init__(self, recipe: FinetuneConfig, world: World, start: bool) -> None:
        """`start`: read what the encoder starts from; not needed where a checkpoint will be loaded."""
        self._recipe, self._world = recipe, world
        self._t = noise_level(recipe.sigma)
        self._condition = conditioning_level(recipe.noise, recipe.sigma)
        settings, optimizer = recipe.training, recipe.optimizer
        network = FinetuningNetwork(
            recipe.encoder, recipe.classes, recipe.final_norm, recipe.noise, recipe.seed, settings.precision
        )
        if start:
            start_encoder(network, recipe)
        network.head.requires_grad_(recipe.train_head)
        use_attention(network, settings.attention, world.device)
        run_blocks(network, settings.activation_checkpointing, settings.compile)
        groups = layer_decay_groups(network, recipe.encoder.depth, optimizer.layer_decay, optimizer.weight_decay)
        self.engine = Engine(network, groups, optimizer, settings, world)
        self.averages = WeightAverages(self.engine, settings.averages)

    def backward(self, batch: LabelledBatch, step: int) -> dict[str, Tensor]:
        """Gradients of the step's loss, micro-batch by micro-batch; an image's draws stay together."""
        images, targets = self._mixed(batch, step)
        noises = [
            training_noise(self._recipe, self._world, step, images.shape, draw) for draw in range(self._recipe.draws)
        ]
        rows = len(images)
        size = self._recipe.training.micro_batch or rows
        totals: dict[str, Tensor] = {}
        for start in range(0, rows, size):
            part = slice(start, min(start + size, rows))
            share = (part.stop - part.start) / rows
            noisy = torch.stack([torch.add(images[part], noise[part], alpha=self._t) for noise in noises])
            loss = self._loss(noisy, targets[part])
            self.engine.backward(loss["loss"] * share, last=part.stop == rows)
            for name, value in loss.items():
                totals[name] = totals.get(name, torch.zeros_like(value)) + value.detach() * share
        return totals

    def after_update(self, step: int) -> None:
        """Nothing follows the parameters in fine-tuning."""

    def describe(self, step: int) -> dict[str, Any]:
        """Every step is alike."""
        return {}

    def networks(self) -> dict[str, dict[str, Tensor]]:
        """The fine-tuned network; see `Step`."""
        return {self.trained: self.engine.weights()}

    def resume_state(self) -> dict[str, dict[str, Tensor]]:
        """Nothing but the optimiser."""
        return {}

    def load(self, checkpoint: Path) -> None:
        """Nothing but the trained network."""

    def _mixed(self, batch: LabelledBatch, step: int) -> tuple[Tensor, Tensor]:
        """[-1, 1] images (n, 3, H, W) and class probabilities (n, classes), mixed as the recipe says."""
        device, streams = self._world.device, self._recipe.data.streams // self._world.size
        images = batch.images.to(device, non_blocking=True).float().div_(127.5).sub_(1)
        labels = batch.labels.to(device, non_blocking=True)
        first = self._world.rank * streams
        return mix(images, labels, self._recipe.classes, self._recipe.mixing, self._recipe.seed, step, first, streams)

    def _loss(self, noisy: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Loss parts of (draws, n, 3, H, W) noisy images; the noise added is t, the conditioning its grid point."""
        draws, n = noisy.shape[:2]
        logits = self.engine(noisy.flatten(0, 1), torch.full((draws * n,), self._condition, device=noisy.device))
        loss = finetuning_loss(logits.view(draws, n, -1), targets, self._recipe.consistency, self._recipe.entropy)
        return {
            "loss": loss.total,
            "cross_entropy": loss.cross_entropy,
            "divergence": loss.divergence,
            "entropy": loss.entropy,
        }
