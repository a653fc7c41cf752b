"""Fine-tuning, put together: samples, step, accuracy under noise."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rrcm_dist.config.estimate import step_flops
from rrcm_dist.config.schema import FinetuneConfig
from rrcm_dist.data.batches import LabelledBatch
from rrcm_dist.data.index import training_identity
from rrcm_dist.data.loaders import finetuning_loader
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import InvalidInput
from rrcm_dist.schedules import learning_rate
from rrcm_dist.training.finetuning_step import FinetuningStep
from rrcm_dist.training.loop import Training
from rrcm_dist.training.samples import dealt_samples, steps_in_all_and_of_warmup
from rrcm_dist.training.watching.noisy_accuracy import NoisyAccuracy
from rrcm_dist.training.work import Work


def prepare_finetuning(recipe: FinetuneConfig, world: World) -> Training:
    """What `loop.train` needs to fine-tune; raises `InvalidInput` for what cannot be, before anything is trained."""
    index, order = dealt_samples(recipe, world)
    if len(index.classes) != recipe.classes:
        raise InvalidInput(f"classes is {recipe.classes}, but {recipe.data.train} has {len(index.classes)} classes")
    total_steps, warmup_steps = steps_in_all_and_of_warmup(recipe, order)
    accuracy = NoisyAccuracy(recipe, index, world)
    goes_on = any((Path(recipe.output) / "checkpoints").glob("step-*"))
    step = FinetuningStep(recipe, world, start=not goes_on)

    def batches(start_step: int) -> Iterator[LabelledBatch]:
        steps, pinned = total_steps - start_step, world.device.type == "cuda"
        return finetuning_loader(index, order, recipe, world.rank, world.size, start_step, steps, pinned)

    return Training(
        recipe=recipe,
        step=step,
        batches=batches,
        evaluate=lambda: accuracy.run(step.engine.network),
        total_steps=total_steps,
        learning_rate=partial(
            learning_rate, peak=recipe.optimizer.lr, warmup_steps=warmup_steps, total_steps=total_steps
        ),
        clip_from=warmup_steps,
        evaluate_every=recipe.evaluation.every_epochs * order.steps_per_epoch,
        data_identity=training_identity(index),
        work=Work(step_flops(recipe)),
    )
