"""Pre-training, put together: samples, step, k-NN evaluation."""

from collections.abc import Iterator
from functools import partial

from rrcm_dist.config.estimate import step_flops
from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.data.batches import PretrainingBatch
from rrcm_dist.data.index import training_identity
from rrcm_dist.data.loaders import pretraining_loader
from rrcm_dist.distributed.world import World
from rrcm_dist.schedules import learning_rate
from rrcm_dist.training.additions import additions_of
from rrcm_dist.training.loop import Training
from rrcm_dist.training.pretraining_step import PretrainingStep
from rrcm_dist.training.samples import dealt_samples, steps_in_all_and_of_warmup
from rrcm_dist.training.watching.evaluation import held_out_index
from rrcm_dist.training.watching.knn import KnnEvaluation
from rrcm_dist.training.watching.probe import LinearProbe
from rrcm_dist.training.watching.profiling import require_window
from rrcm_dist.training.work import Work


def check_additions(recipe: PretrainConfig, world: World) -> None:
    """Raise `InvalidInput` for what additions cannot do, or would stop the main run after the stages before it."""
    additions = additions_of(recipe)
    if not additions:
        return
    index, order = dealt_samples(recipe, world)
    total_steps, _ = steps_in_all_and_of_warmup(recipe, order)
    held_out_index(recipe.data, index)
    require_window(recipe.training, total_steps)
    for addition in additions:
        addition.check(recipe, total_steps, world)


def prepare_pretraining(recipe: PretrainConfig, world: World) -> Training:
    """What `loop.train` needs to pre-train; raises `InvalidInput` for what cannot be, before anything is trained.

    What additions cannot do, `check_additions` has refused.
    """
    index, order = dealt_samples(recipe, world)
    total_steps, warmup_steps = steps_in_all_and_of_warmup(recipe, order)
    knn = KnnEvaluation(recipe, index, world)
    classes = len(index.classes)
    probe = LinearProbe(recipe.encoder.width, classes, recipe.probe, world) if recipe.probe.on else None
    additions = [addition(recipe, total_steps, world) for addition in additions_of(recipe)]
    step = PretrainingStep(recipe, total_steps, world, probe, additions)

    def batches(start_step: int) -> Iterator[PretrainingBatch]:
        steps, pinned = total_steps - start_step, world.device.type == "cuda"
        return pretraining_loader(index, order, recipe, world.rank, world.size, start_step, steps, pinned)

    return Training(
        recipe=recipe,
        step=step,
        batches=batches,
        evaluate=lambda: knn.run(step.engine.network, probe),
        total_steps=total_steps,
        learning_rate=partial(
            learning_rate, peak=recipe.optimizer.lr, warmup_steps=warmup_steps, total_steps=total_steps
        ),
        clip_from=warmup_steps,
        evaluate_every=recipe.knn.every,
        data_identity=training_identity(index),
        work=sum((addition.work() for addition in additions), Work(step_flops(recipe))),
    )
