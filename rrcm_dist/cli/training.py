"""What `rrcm pretrain` and `rrcm finetune` have in common."""

import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from rrcm_dist.cli.door import INTERRUPTED
from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.errors import InvalidInput

if TYPE_CHECKING:
    from rrcm_dist.training.loop import Task


def run_training(recipe: PretrainConfig | FinetuneConfig, device: str, resume: str) -> None:
    """Train as a rank of the world that torchrun describes, or alone; prints where the checkpoint is."""
    if resume not in ("auto", "never"):
        raise InvalidInput(f"--resume {resume!r} is not known: choose auto or never")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    from rrcm_dist.distributed.world import join_world
    from rrcm_dist.training.loop import train

    with join_world(device) as world:
        task = _task_of(recipe)(recipe, world)
        outcome = train(task, world, resume == "auto")
        if world.is_main:
            typer.echo(str(outcome.checkpoint))
    if outcome.interrupted:
        print(f"stopped at step {outcome.step}; the same command goes on from there", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)


def _task_of(recipe: PretrainConfig | FinetuneConfig) -> Callable[..., "Task"]:
    if isinstance(recipe, PretrainConfig):
        from rrcm_dist.training.pretraining import PretrainingTask

        return PretrainingTask
    from rrcm_dist.training.finetuning import FinetuningTask

    return FinetuningTask
