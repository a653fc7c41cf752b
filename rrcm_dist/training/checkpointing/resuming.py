"""From a step's state to a checkpoint's contents and back, in a world of any size at any ZeRO stage."""

import logging
from pathlib import Path

from rrcm_dist.config.parts import TrainingConfig
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import InvalidInput
from rrcm_dist.training.checkpointing.checkpoints import OPTIMIZER, Contents, Progress, read_network, read_resume_state
from rrcm_dist.training.step import Step

log = logging.getLogger(__name__)


def contents_of(step: Step) -> Contents:
    """What a checkpoint keeps of a step; every rank must call it, and the main rank gets it."""
    return Contents(
        networks={**step.networks(), **step.averages.weights()},
        resume={OPTIMIZER: step.engine.moments(), **step.resume_state()},
    )


def restore(step: Step, checkpoint: Path, progress: Progress, settings: TrainingConfig, world: World) -> None:
    """Take up a checkpoint, whatever ranks and stage wrote it; every rank must call it, and none waits for another.

    Raises `InvalidInput` where it is of another network.
    """
    weights, moments = read_network(checkpoint, step.trained), read_resume_state(checkpoint, OPTIMIZER)
    if weights is None or moments is None:
        raise InvalidInput(f"{checkpoint} holds no {step.trained} network with its optimiser: it is of another kind")
    step.engine.load(weights, moments, progress.step, str(checkpoint))
    step.load(checkpoint)
    step.averages.load(lambda name: read_network(checkpoint, name))
    if world.is_main:
        before, now = (progress.ranks, progress.zero_stage), (world.size, settings.zero_stage)
        change = "" if before == now else f" ({_layout(*before)}), now on {_layout(*now)}"
        log.info("resuming from %s%s", checkpoint, change)
        for name in step.averages.names:
            if not (checkpoint / f"{name}.safetensors").is_file():
                log.info("%s begins with the weights of step %d", name, progress.step)


def _layout(ranks: int, stage: int) -> str:
    return f"{ranks} rank{'s' * (ranks != 1)} at ZeRO stage {stage}"
