"""The loop: resume, step, look up now and then, keep checkpoints. What a step is, `Training.step` says."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rrcm_dist.config.keys import TrainingRecipe
from rrcm_dist.data.batches import DecodeFailures
from rrcm_dist.distributed.collectives import raise_together, sum_over_ranks
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.progress import progress_bar
from rrcm_dist.training.checkpointing.checkpoints import Progress, checkpoint_of, find_checkpoint, require_room
from rrcm_dist.training.checkpointing.mirror import Mirror
from rrcm_dist.training.checkpointing.resuming import contents_of, restore
from rrcm_dist.training.checkpointing.saving import CheckpointWriter
from rrcm_dist.training.run_folder import RunFolder
from rrcm_dist.training.run_lock import RunLock
from rrcm_dist.training.step import Step
from rrcm_dist.training.watching.guard import Guard
from rrcm_dist.training.watching.metrics import Metrics
from rrcm_dist.training.watching.profiling import Profiling, require_window
from rrcm_dist.training.watching.spikes import SpikeWatch
from rrcm_dist.training.watching.utilisation import DevicePeak, device_peak
from rrcm_dist.training.work import Work

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """Everything that `train` needs: pre-training and fine-tuning each put one together."""

    recipe: TrainingRecipe
    step: Step
    batches: Callable[[int], Iterator[Any]]
    """Step to start from → this rank's batches to the last step."""
    evaluate: Callable[[], dict[str, float]]
    """Accuracies by name; every rank calls it."""
    total_steps: int
    learning_rate: Callable[[int], float]
    """Finished steps → learning rate of the next."""
    clip_from: int
    """Finished steps from which on the gradient is clipped."""
    evaluate_every: int
    """Steps between evaluations."""
    data_identity: str
    """Of the training samples and the order of their shards."""
    work: Work
    """Arithmetic of its steps and of what came before."""


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended."""

    checkpoint: Path
    step: int
    interrupted: bool = False


def train(training: Training, world: World, resume: bool = True, allow: Sequence[str] = ()) -> Outcome:
    """Train to the last step, from the newest checkpoint on, whatever ranks and ZeRO stage wrote it.

    Args:
        training: what to train.
        world: this rank's place.
        resume: False raises `InvalidInput` where there are checkpoints.
        allow: keys of the recipe, or beginnings of keys, that may differ from the run that is gone on with.

    Raises `InvalidInput` where the output folder holds another run or another process trains there; `RunFailure` for
    numbers that are not finite, too many undecodable samples, or a disk that is full. Checkpoints stay good in every
    case.
    """
    folder = RunFolder(training.recipe, training.data_identity, allow)
    require_window(training.recipe.training, training.total_steps)
    raise_together(folder.check)
    lock = RunLock(folder.path)
    raise_together(lock.take, on_this_rank=world.is_main)
    try:
        return _train_in(folder, training, world, resume)
    finally:
        lock.release()


def _train_in(folder: RunFolder, training: Training, world: World, resume: bool) -> Outcome:
    recipe = training.recipe
    mirror = Mirror(recipe.training.checkpoints_to, recipe) if recipe.training.checkpoints_to else None
    if mirror is not None:
        raise_together(lambda: _begin_mirror(mirror, folder, resume), on_this_rank=world.is_main)
    found = find_checkpoint(folder.checkpoints)
    if found and not resume:
        raise InvalidInput(f"{folder.path} holds checkpoints: resume, or give another output")
    if found:
        raise_together(lambda: folder.check_checkpoint(*found))
    if found and mirror is not None:
        raise_together(lambda: _make_up(mirror, found[0]), on_this_rank=world.is_main)
    if found and found[1].step >= training.total_steps:
        log.info("%s is finished (step %d)", folder.path, found[1].step)
        return Outcome(found[0], found[1].step)
    if found:
        raise_together(lambda: restore(training.step, *found, recipe.training, world))
    start_step = found[1].step if found else 0
    peak = device_peak(recipe.training, world.device)
    raise_together(lambda: _open(folder, recipe, start_step, world, peak), on_this_rank=world.is_main)
    if world.is_main:
        log.info(
            "%s: %d steps of %d images, %s at ZeRO stage %d on %s",
            recipe.name, training.total_steps, recipe.training.batch,
            f"{world.size} rank{'s' * (world.size != 1)}", recipe.training.zero_stage, world.device.type,
        )  # fmt: skip
    writer = CheckpointWriter(folder.checkpoints, recipe, world, mirror)
    metrics = Metrics(recipe, folder, world, peak, training.work)
    try:
        return _run(training, world, folder, metrics, writer, start_step)
    finally:
        writer.finish()
        metrics.close()


def _run(
    training: Training, world: World, folder: RunFolder, metrics: Metrics, writer: CheckpointWriter, step: int
) -> Outcome:
    recipe, settings, total_steps = training.recipe, training.recipe.training, training.total_steps
    guard = Guard(world, folder.path, SpikeWatch(settings, folder.path, world.is_main, training.step.describe))
    failures = DecodeFailures(recipe.data.max_decode_failures)
    title = f"{recipe.kind} {recipe.name}"
    with (
        guard.signals(),
        progress_bar(title, total_steps, step, "steps", world.is_main) as bar,
        Profiling(settings, folder.path, world, step) as profiling,
    ):
        for batch in metrics.timed(training.batches(step)):
            profiling.begin(step)
            failures.update(batch)
            parts = training.step.backward(batch, step)
            lr, gradient_norm = _update(training, step)
            problem = failures.problem() or writer.problem()
            asked_to_stop = guard.watch(step, [parts["loss"], gradient_norm], batch.keys, problem)
            metrics.add({**parts, "gradient_norm": gradient_norm})
            step += 1
            last = step == total_steps
            note = ""
            if last or step % settings.log_every == 0:
                note = metrics.log_steps(step, lr=lr, decode_failures=_over_ranks(failures.failed, world))
            bar.advance(1, note)
            if last or step % training.evaluate_every == 0:
                with metrics.aside():
                    results = training.step.averages.evaluate(training.evaluate)
                metrics.log_evaluation(step, results)
                if world.is_main and results:
                    log.info("step %d: %s", step, "  ".join(f"{name} {value:.3f}" for name, value in results.items()))
            if last or asked_to_stop or step % settings.checkpoint_every == 0:
                guard.settle()
                writer.save(lambda: contents_of(training.step), _progress(training, world, step))
            if asked_to_stop:
                break
        # Signals are still held: a second SIGTERM must not cost the checkpoint that the first one asked for.
        writer.settle()
        writer.finish()
    if step != total_steps and not asked_to_stop:
        raise RunFailure(f"the loader ended at step {step} of {total_steps}")
    return Outcome(checkpoint_of(folder.checkpoints, step), step, interrupted=step != total_steps)


def _update(training: Training, step: int) -> tuple[float, Tensor]:
    """Move the parameters; returns the learning rate and the gradient norm before clipping."""
    optimizer = training.recipe.optimizer
    lr = training.learning_rate(step)
    gradient_norm = training.step.engine.update(lr, optimizer.clip if step >= training.clip_from else None)
    training.step.after_update(step)
    training.step.averages.update(step)
    return lr, gradient_norm


def _over_ranks(count: int, world: World) -> int:
    return int(sum_over_ranks(torch.tensor(float(count), device=world.device)))


def _progress(training: Training, world: World, step: int) -> Progress:
    settings = training.recipe.training
    return Progress(
        step,
        training.work.samples(step, settings.batch),
        world.size,
        settings.zero_stage,
        step == training.total_steps,
        training.data_identity,
    )


def _begin_mirror(mirror: Mirror, folder: RunFolder, resume: bool) -> None:
    stored = mirror.stored_recipe()
    if stored is not None:
        folder.check_recipe(stored, mirror.place, "training.checkpoints_to")
    if not any(folder.checkpoints.glob("step-*")):
        if not resume and mirror.holds():
            raise InvalidInput(f"{mirror.place} holds checkpoints: resume, or give another training.checkpoints_to")
        mirror.fetch_newest(folder.checkpoints)
    mirror.open()


def _make_up(mirror: Mirror, checkpoint: Path) -> None:
    """Copy a checkpoint there whose copying failed when it was written."""
    if not mirror.holds(checkpoint.name):
        mirror.keep(checkpoint)


def _open(folder: RunFolder, recipe: TrainingRecipe, start_step: int, world: World, peak: DevicePeak) -> None:
    folder.open(start_step, world.size, peak)
    require_room(folder.checkpoints, recipe)
