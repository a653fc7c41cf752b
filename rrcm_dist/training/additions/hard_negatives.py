"""Dynamic hard negatives in the contrastive terms of pre-training (Conan-embedding, Li et al. 2024, arXiv 2408.15710).

At a step, in this order: the target projections of the batch go into the bank; every `interval` steps the negatives of
all samples are looked at; the batch's negatives become columns of the contrastive terms.
"""

from pathlib import Path

import torch
from torch import Tensor

from rrcm_dist.config.hard_negatives import HardNegativesConfig
from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.data.batches import PretrainingBatch
from rrcm_dist.data.index import read_header
from rrcm_dist.data.stores import StoreSettings
from rrcm_dist.distributed.collectives import gather_over_ranks
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import InvalidInput
from rrcm_dist.negatives.columns import columns
from rrcm_dist.negatives.mining import HardNegatives
from rrcm_dist.objectives.contrastive import Negatives
from rrcm_dist.objectives.pretraining import PretrainingKeys
from rrcm_dist.training.additions.addition import Addition
from rrcm_dist.training.additions.room import require_memory
from rrcm_dist.training.checkpointing.checkpoints import read_resume_state

STATE = "hard-negatives"
"""Of the bank and all assignments, as a file in a checkpoint."""


class HardNegativesAddition(Addition):
    """A bank over all ranks, and extra columns of both contrastive terms."""

    def __init__(self, recipe: PretrainConfig, total_steps: int, world: World) -> None:
        """See `Addition`."""
        config, samples = _section_of(recipe), _samples_of(recipe)
        self._config, self._world, self._start = config, world, _start_of(recipe, samples)
        self._negatives = HardNegatives(config, samples, recipe.projector.output, recipe.seed, world.device)
        self._parts: dict[str, Tensor] = {}

    @classmethod
    def check(cls, recipe: PretrainConfig, total_steps: int, world: World) -> None:
        """There are samples enough, the bank fits in memory, and it is used before the end; see `Addition`."""
        config, samples = _section_of(recipe), _samples_of(recipe)
        if problem := config.problem(samples):
            raise InvalidInput(f"additions.hard_negatives: data.train ({recipe.data.train}) is too small: {problem}")
        require_memory(
            "the bank of additions.hard_negatives",
            config.bank_bytes(samples, recipe.projector.output, world.size),
            config.mining_bytes(samples, recipe.projector.output, world.size),
            world,
            "start more ranks, set precision of additions.hard_negatives to fp16, or lower its count, pool or "
            "guard.skip_share",
        )
        start = _start_of(recipe, samples)
        if start >= total_steps:
            raise InvalidInput(
                f"additions.hard_negatives would begin after {start} steps, and the run has {total_steps}: lower "
                "additions.hard_negatives.start or raise training.steps"
            )

    def negatives(self, batch: PretrainingBatch, keys: PretrainingKeys, step: int) -> Negatives | None:
        """The negatives of the whole batch, as columns; see `Addition`."""
        ids = gather_over_ranks(batch.sample_ids.to(self._world.device, non_blocking=True))
        means, agreement = self._negatives.visit(ids, (keys.view_a, keys.view_b))
        if step < self._start:
            self._tell(torch.ones((), device=ids.device), torch.zeros((), device=ids.device))
            return None
        if (step - self._start) % self._config.interval == 0:
            self._negatives.look(step)
        key_ids = self._negatives.ids(ids, step)
        found = self._negatives.bank.fetch(key_ids.flatten()).unflatten(0, key_ids.shape)
        rows = len(batch.sample_ids)
        own = slice(self._world.rank * rows, (self._world.rank + 1) * rows)
        only = own if self._config.columns == "own" else None
        limits = self._negatives.limit(agreement[own])
        of_batch = columns(means[own], ids[own], limits, found, key_ids, only)
        self._tell(of_batch.banned_share, of_batch.cosine)
        return Negatives(of_batch.keys, of_batch.banned)

    def parts(self) -> dict[str, Tensor]:
        """What the last look found, and what the step's columns are like; see `Addition`."""
        return self._parts

    def resume_state(self) -> dict[str, dict[str, Tensor]]:
        """The bank with all assignments; see `Addition`."""
        state = self._negatives.state()
        return {STATE: state if self._world.is_main else {}}

    def load(self, checkpoint: Path) -> None:
        """See `Addition`. Raises `InvalidInput` where the bank is of other samples, widths or numbers of negatives."""
        state = read_resume_state(checkpoint, STATE)
        if state is None:
            return
        for name, shape in self._negatives.shapes().items():
            there = tuple(state[name].shape) if name in state else None
            if there != shape:
                raise InvalidInput(
                    f"the hard negatives of {checkpoint} do not suit additions.hard_negatives: {name} is {there} there "
                    f"and {shape} here; give the settings it was written with, or another output"
                )
        self._negatives.load(state)

    def _tell(self, banned: Tensor, cosine: Tensor) -> None:
        tally = self._negatives.tally
        self._parts = {
            "negatives_score": tally.score,
            "negatives_replaced": tally.replaced,
            "negatives_replacements": tally.replacements,
            "negatives_banned": banned,
            "negatives_cosine": cosine,
        }


def _section_of(recipe: PretrainConfig) -> HardNegativesConfig:
    section = recipe.additions.hard_negatives
    assert section is not None
    return section


def _samples_of(recipe: PretrainConfig) -> int:
    return int(read_header(recipe.data.train, StoreSettings.of(recipe.data))["samples"])


def _start_of(recipe: PretrainConfig, samples: int) -> int:
    """Steps before the first mining."""
    start = _section_of(recipe).start
    return samples // recipe.training.batch if start is None else start
