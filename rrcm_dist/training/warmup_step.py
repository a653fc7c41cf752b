"""The first stage of representation warm-up: a run of its own, in OUTPUT/warmup, of the early blocks alone."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rrcm_dist.config.representation_warmup import RepresentationWarmupConfig
from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.config.warmup_costs import WarmupCosts
from rrcm_dist.data.batches import PretrainingBatch
from rrcm_dist.data.index import training_identity
from rrcm_dist.data.loaders import pretraining_loader
from rrcm_dist.distributed.world import World
from rrcm_dist.models.attention import use_attention
from rrcm_dist.models.encoder import run_blocks
from rrcm_dist.schedules import learning_rate
from rrcm_dist.training.loop import Training
from rrcm_dist.training.noisy_views import clean_pixels
from rrcm_dist.training.parameter_groups import one_group
from rrcm_dist.training.samples import dealt_samples
from rrcm_dist.training.work import Work
from rrcm_dist.training.zero.averages import WeightAverages
from rrcm_dist.training.zero.engine import Engine
from rrcm_dist.warmup.early_blocks import EARLY_BLOCKS, EarlyBlocks
from rrcm_dist.warmup.teacher import Teacher

FOLDER = "warmup"
"""Within the main run's output."""


class WarmupStep:
    """The early blocks, and what a step does to them. Every image of the batch counts alike, however it is cut up."""

    trained = EARLY_BLOCKS

    def __init__(
        self, recipe: PretrainConfig, section: RepresentationWarmupConfig, teacher: Teacher, world: World
    ) -> None:
        """`recipe`: of the stage, see `warmup_recipe`; `teacher`: on the world's device."""
        settings = recipe.training
        self._micro_batch, self._teacher, self._world = settings.micro_batch, teacher, world
        network = EarlyBlocks(recipe, section.blocks, section.hidden, teacher.cost.width)
        use_attention(network, settings.attention, world.device)
        run_blocks(network, settings.activation_checkpointing, settings.compile)
        self.engine = Engine(
            network, one_group(network, recipe.optimizer.weight_decay), recipe.optimizer, settings, world
        )
        self.averages = WeightAverages(self.engine, settings.averages)

    def backward(self, batch: PretrainingBatch, step: int) -> dict[str, Tensor]:
        """Gradients of the mean negative cosine over the rank's images and their patches."""
        rows = len(batch.plain)
        size = self._micro_batch or rows
        total = torch.zeros((), device=self._world.device)
        for start in range(0, rows, size):
            clean = clean_pixels(batch.plain[start : start + size].to(self._world.device, non_blocking=True))
            loss = self.engine(clean, self._teacher(clean)).sum() / rows
            self.engine.backward(loss, last=start + size >= rows)
            total += loss.detach()
        return {"loss": total}

    def after_update(self, step: int) -> None:
        """Nothing follows the early blocks."""

    def describe(self, step: int) -> dict[str, Any]:
        """Nothing is drawn but the images."""
        return {}

    def networks(self) -> dict[str, dict[str, Tensor]]:
        """The early blocks with their head; see `Step`."""
        return {EARLY_BLOCKS: self.engine.weights()}

    def resume_state(self) -> dict[str, dict[str, Tensor]]:
        """Nothing but the optimiser's."""
        return {}

    def load(self, checkpoint: Path) -> None:
        """The engine has all there is."""


def warmup_recipe(recipe: PretrainConfig) -> PretrainConfig:
    """The main run's recipe as the first stage goes by it: its own folder, name, steps and optimiser."""
    section = recipe.additions.representation_warmup
    assert section is not None
    place = recipe.training.checkpoints_to
    training = recipe.training.model_copy(
        update={
            "steps": section.steps,
            "epochs": None,
            "averages": (),
            "profile": None,
            "checkpoints_to": None if place is None else f"{place.rstrip('/')}/{FOLDER}",
        }
    )
    own = {
        "name": f"{recipe.name}-{FOLDER}",
        "output": str(Path(recipe.output) / FOLDER),
        "optimizer": section.optimizer,
        "training": training,
    }
    return recipe.model_copy(update=own)


def prepare_warmup(recipe: PretrainConfig, teacher: Teacher, world: World) -> Training:
    """What `loop.train` needs for the first stage of the main run's `recipe`; raises `InvalidInput` for what cannot be.

    Batches, their order and their plain views are those of the main run's first steps; nothing is evaluated.
    """
    section = recipe.additions.representation_warmup
    assert section is not None
    own = warmup_recipe(recipe)
    index, order = dealt_samples(own, world)
    step = WarmupStep(own, section, teacher, world)

    def batches(start_step: int) -> Iterator[PretrainingBatch]:
        steps, pinned = section.steps - start_step, world.device.type == "cuda"
        return pretraining_loader(index, order, own, world.rank, world.size, start_step, steps, pinned)

    optimizer = section.optimizer
    return Training(
        recipe=own,
        step=step,
        batches=batches,
        evaluate=dict,
        total_steps=section.steps,
        learning_rate=partial(
            learning_rate, peak=optimizer.lr, warmup_steps=optimizer.warmup, total_steps=section.steps
        ),
        clip_from=optimizer.warmup,
        evaluate_every=section.steps,
        data_identity=training_identity(index),
        work=Work(WarmupCosts(recipe, teacher.cost).warmup_step_flops),
    )
