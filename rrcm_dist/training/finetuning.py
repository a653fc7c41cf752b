"""Fine-tuning at one σ: several draws of noise per image, cross-entropy and consistency."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from rrcm_dist.config.schema import FinetuneConfig
from rrcm_dist.data.batches import LabelledBatch
from rrcm_dist.data.index import load_index
from rrcm_dist.data.loaders import finetuning_loader
from rrcm_dist.data.mixing import mix
from rrcm_dist.data.order import SampleOrder
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import InvalidInput
from rrcm_dist.models.attention import use_attention
from rrcm_dist.models.rrcm import FinetuningNetwork
from rrcm_dist.noise import conditioning_level, noise_level
from rrcm_dist.objectives.finetuning import finetuning_loss
from rrcm_dist.training.engine import Engine
from rrcm_dist.training.evaluation import HeldOutImages
from rrcm_dist.training.noise_draws import training_noise
from rrcm_dist.training.parameter_groups import layer_decay_groups
from rrcm_dist.training.starting_point import start_encoder


class FinetuningTask:
    """A step of fine-tuning, for `loop.train`."""

    def __init__(self, recipe: FinetuneConfig, world: World) -> None:
        self.recipe, self._world = recipe, world
        settings, data = recipe.training, recipe.data
        self._index = load_index(data.train)
        if len(self._index.classes) != recipe.classes:
            raise InvalidInput(f"classes is {recipe.classes}, but {data.train} has {len(self._index.classes)} classes")
        samples = [shard.samples for shard in self._index.shards]
        self._order = SampleOrder(samples, settings.batch, data.streams, recipe.seed, data.shuffle_window)
        self._order.rank_batch(0, world.rank, world.size)  # a number of ranks that does not fit is told now
        epoch = self._order.steps_per_epoch
        self.total_steps = settings.steps or (settings.epochs or 0) * epoch
        self.warmup_steps, self.evaluate_every = recipe.optimizer.warmup * epoch, recipe.evaluation.every_epochs * epoch
        network = FinetuningNetwork(
            recipe.encoder, recipe.classes, recipe.final_norm, recipe.noise, recipe.seed, settings.precision
        )
        self.start_report = start_encoder(network, recipe)
        network.head.requires_grad_(recipe.train_head)
        use_attention(network, settings.attention, world.device)
        optimizer = recipe.optimizer
        groups = layer_decay_groups(network, recipe.encoder.depth, optimizer.layer_decay, optimizer.weight_decay)
        self.engine = Engine(network, groups, optimizer, settings, world)
        self._held_out = self._load_held_out()

    def batches(self, start_step: int) -> Iterator[LabelledBatch]:
        """This rank's batches from `start_step` to the last step."""
        world, steps = self._world, self.total_steps - start_step
        return finetuning_loader(self._index, self._order, self.recipe, world.rank, world.size, start_step, steps)

    def backward(self, batch: LabelledBatch, step: int) -> dict[str, Tensor]:
        """Gradients of the step's loss, micro-batch by micro-batch; an image's draws stay together."""
        images, targets = self._mixed(batch, step)
        noises = [
            training_noise(self.recipe, self._world, step, images.shape, draw) for draw in range(self.recipe.draws)
        ]
        rows = len(images)
        size = self.recipe.training.micro_batch or rows
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

    def evaluate(self) -> dict[str, float]:
        """Accuracy of the base classifier on held-out images under each σ, by 'accuracy_sigma_…'."""
        if self._held_out is None:
            return {}
        with torch.no_grad():
            return {
                f"accuracy_sigma_{sigma:g}": self._accuracy(self._held_out, sigma)
                for sigma in self.recipe.evaluation.sigmas
            }

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """The fine-tuned network."""
        return {"model": self.engine.weights()}

    def load(self, checkpoint: Path) -> None:
        """Everything is in the engine's state."""

    @property
    def _t(self) -> float:
        return noise_level(self.recipe.sigma)

    def _mixed(self, batch: LabelledBatch, step: int) -> tuple[Tensor, Tensor]:
        """[-1, 1] images (n, 3, H, W) and class probabilities (n, classes), mixed as the recipe says."""
        device, streams = self._world.device, self.recipe.data.streams // self._world.size
        images = batch.images.to(device, non_blocking=True).float().div_(127.5).sub_(1)
        labels = batch.labels.to(device, non_blocking=True)
        first = self._world.rank * streams
        return mix(images, labels, self.recipe.classes, self.recipe.mixing, self.recipe.seed, step, first, streams)

    def _loss(self, noisy: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Loss parts of (draws, n, 3, H, W) noisy images; the noise added is t, the conditioning its grid point."""
        draws, n = noisy.shape[:2]
        logits = self.engine(noisy.flatten(0, 1), self._condition(draws * n, self.recipe.sigma))
        loss = finetuning_loss(logits.view(draws, n, -1), targets, self.recipe.consistency, self.recipe.entropy)
        return {
            "loss": loss.total,
            "cross_entropy": loss.cross_entropy,
            "divergence": loss.divergence,
            "entropy": loss.entropy,
        }

    def _condition(self, n: int, sigma: float) -> Tensor:
        return torch.full((n,), conditioning_level(self.recipe.noise, sigma), device=self._world.device)

    def _accuracy(self, held_out: HeldOutImages, sigma: float) -> float:
        network = self.engine.network
        predicted = held_out.outputs(lambda noisy: network(noisy, self._condition(len(noisy), sigma)).argmax(1), sigma)
        return (predicted == held_out.labels).float().mean().item()

    def _load_held_out(self) -> HeldOutImages | None:
        if self.recipe.data.held_out is None:
            return None
        index = load_index(self.recipe.data.held_out)
        if index.classes != self._index.classes:
            raise InvalidInput(f"{self.recipe.data.held_out} and {self.recipe.data.train} have different classes")
        recipe = self.recipe
        return HeldOutImages(index, recipe.evaluation.images, recipe.encoder.image_size, recipe.seed, self._world)
