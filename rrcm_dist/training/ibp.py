"""Certified training by bounds, put together: samples, schedules, step, verified error."""

from collections.abc import Iterator
from functools import partial

from rrcm_dist.config.ibp import IbpConfig
from rrcm_dist.config.ibp_estimate import step_flops
from rrcm_dist.data.batches import LabelledBatch
from rrcm_dist.data.index import training_identity
from rrcm_dist.data.order import SampleOrder
from rrcm_dist.data.shifted_views import shifted_loader
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import InvalidInput
from rrcm_dist.interval.schedule import stepped_rate
from rrcm_dist.training.ibp_step import EpsilonRamp, IbpStep
from rrcm_dist.training.loop import Training
from rrcm_dist.training.samples import dealt_samples
from rrcm_dist.training.watching.verified_error import VerifiedError
from rrcm_dist.training.work import Work


def prepare_ibp(recipe: IbpConfig, world: World) -> Training:
    """What `loop.train` needs; raises `InvalidInput` for what cannot be, before anything is trained."""
    index, order = dealt_samples(recipe, world)
    if len(index.classes) != recipe.classes:
        raise InvalidInput(f"classes is {recipe.classes}, but {recipe.data.train} has {len(index.classes)} classes")
    epoch = order.steps_per_epoch
    total_steps = recipe.training.steps or (recipe.training.epochs or 0) * epoch
    ramp = _ramp(recipe, order, total_steps)
    errors = VerifiedError(recipe, index, world)
    step = IbpStep(recipe, world, ramp)

    def batches(start_step: int) -> Iterator[LabelledBatch]:
        steps, pinned = total_steps - start_step, world.device.type == "cuda"
        return shifted_loader(index, order, recipe, world.rank, world.size, start_step, steps, pinned)

    settings = recipe.optimizer
    milestones = [milestone * epoch for milestone in settings.milestones]
    return Training(
        recipe=recipe,
        step=step,
        batches=batches,
        evaluate=lambda: errors.run(step.engine.network),
        total_steps=total_steps,
        learning_rate=partial(stepped_rate, peak=settings.lr, milestones=milestones, decay=settings.decay),
        clip_from=0,
        evaluate_every=recipe.evaluation.every_epochs * epoch,
        data_identity=training_identity(index),
        work=Work(step_flops(recipe)),
    )


def _ramp(recipe: IbpConfig, order: SampleOrder, total_steps: int) -> EpsilonRamp:
    schedule, epoch = recipe.epsilon, order.steps_per_epoch
    ramp = EpsilonRamp(schedule.target, schedule.clean_epochs * epoch, schedule.ramp_epochs * epoch)
    if ramp.start + ramp.length > total_steps:
        raise InvalidInput(
            f"ε reaches its target after {ramp.start + ramp.length} steps ({epoch} an epoch), and the whole run has "
            f"{total_steps}: lower epsilon.clean_epochs or epsilon.ramp_epochs, or raise training.steps"
        )
    return ramp
