"""Representation warm-up (ERW, Liu et al. 2025, arXiv 2504.10188): early blocks that begin from a teacher's tokens.

A stage before the main one trains the first blocks alone; the main run starts from them, with a fresh optimiser and
averages that begin there, too. Beside its loss there may be the alignment of the noisy plain view's tokens at a middle
block with the teacher's of the same image without noise, at a weight that halves again and again.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from rrcm_dist.config.representation_warmup import RepresentationWarmupConfig
from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.config.warmup_costs import WarmupCosts
from rrcm_dist.distributed.collectives import agree, raise_together
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import RunFailure
from rrcm_dist.models.rrcm import PretrainingNetwork
from rrcm_dist.training.additions.addition import Addition
from rrcm_dist.training.checkpointing.checkpoints import find_checkpoint
from rrcm_dist.training.loop import Training
from rrcm_dist.training.warmup_step import prepare_warmup, warmup_recipe
from rrcm_dist.training.work import Work
from rrcm_dist.warmup.alignment import AlignmentHead, term_weight
from rrcm_dist.warmup.handover import REPORT, hand_over, hand_over_head, reported_teacher, write_report
from rrcm_dist.warmup.teacher import Teacher, load_teacher

if TYPE_CHECKING:
    from rrcm_dist.training.noisy_views import NoisyViews

log = logging.getLogger(__name__)

HEAD = "alignment"
NOISY_PLAIN_VIEW = 2
"""P among the views of the online network: A, B, P."""


class RepresentationWarmup(Addition):
    """The first stage, its hand-over, and the term beside the main run's loss."""

    def __init__(self, recipe: PretrainConfig, total_steps: int, world: World) -> None:
        """Raises `InvalidInput` where the teacher cannot be. Without a term, a run that has begun needs it no more."""
        self._recipe, self._world, self._section = recipe, world, _section_of(recipe)
        begun = not self._section.term.weight and _has_checkpoints(recipe)
        cost = reported_teacher(Path(recipe.output)) if begun else None
        self._teacher: Teacher | None = None
        if cost is None:
            teacher = load_teacher(self._section.teacher, recipe.encoder)
            cost = teacher.cost
            if self._section.term.weight:
                self._teacher = teacher.to(world.device, recipe.training.precision)
        self._costs = WarmupCosts(recipe, cost)
        self._checkpoint: Path | None = None

    @classmethod
    def stage_before(cls, recipe: PretrainConfig, world: World) -> Training | None:
        """The warm-up, unless the main run has checkpoints."""
        if _has_checkpoints(recipe):
            return None
        teacher = load_teacher(_section_of(recipe).teacher, recipe.encoder)
        return prepare_warmup(recipe, teacher.to(world.device, recipe.training.precision), world)

    def start(self, network: PretrainingNetwork) -> None:
        """Embeddings and early blocks from the warm-up, unless a checkpoint of the main run is gone on from."""
        if _has_checkpoints(self._recipe):
            return
        folder = Path(warmup_recipe(self._recipe).output)
        found = find_checkpoint(folder / "checkpoints")
        if found is None or not found[1].finished:
            raise RunFailure(f"{folder} holds no finished warm-up: start the run anew")
        self._checkpoint = checkpoint = found[0]
        report, run = hand_over(checkpoint, network), Path(self._recipe.output)
        raise_together(
            lambda: write_report(run, checkpoint, report, self._head_goes_on, self._costs.teacher),
            on_this_rank=self._world.is_main,
        )
        if self._world.is_main:
            log.info(
                "from the warm-up %s: %d tensors loaded, %d left as initialised, %d unused (%s in the run folder)",
                self._checkpoint, len(report.loaded), len(report.missing), len(report.unused), REPORT,
            )  # fmt: skip

    def attach(self, network: PretrainingNetwork) -> None:
        """The head of the term; the warm-up's own where it is after the same block."""
        if self._teacher is None:
            return
        head = AlignmentHead(
            self._recipe.encoder.width,
            self._section.hidden,
            self._teacher.cost.width,
            self._recipe.seed,
            NOISY_PLAIN_VIEW,
        )
        if self._checkpoint is not None and self._head_goes_on:
            hand_over_head(self._checkpoint, head)
        network.add_head(HEAD, self._section.term_block(self._recipe.encoder), head)

    def head_inputs(self, views: "NoisyViews", rows: slice) -> dict[str, Tensor]:
        """The teacher's tokens of the plain view without noise."""
        return {} if self._teacher is None else {HEAD: self._teacher(views.clean(rows))}

    def head_weights(self, step: int) -> Mapping[str, float]:
        """λ of the step."""
        term = self._section.term
        return {} if self._teacher is None else {HEAD: term_weight(term.weight, term.halving_steps, step)}

    def work(self) -> Work:
        """The term's share of each step; the whole warm-up before the first."""
        steps = self._section.steps
        return Work(self._costs.term_step_flops, self._costs.warmup_flops, steps * self._recipe.training.batch)

    @property
    def _head_goes_on(self) -> bool:
        return self._teacher is not None and self._section.term_block(self._recipe.encoder) == self._section.blocks


def _section_of(recipe: PretrainConfig) -> RepresentationWarmupConfig:
    section = recipe.additions.representation_warmup
    assert section is not None
    return section


def _has_checkpoints(recipe: PretrainConfig) -> bool:
    """Whether the main run has begun; the same on every rank, damaged ones count."""
    return bool(agree(any((Path(recipe.output) / "checkpoints").glob("step-*"))))
