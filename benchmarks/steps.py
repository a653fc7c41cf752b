"""The pre-training steps that are measured beside each other: ours as the trainer runs it, and the released one."""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.released_data import Views, image_files, released_batches
from benchmarks.released_step import ReleasedStep
from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.data.batches import PretrainingBatch
from rrcm_dist.data.photometric import COLUMNS, JITTERS, Column
from rrcm_dist.distributed.world import World
from rrcm_dist.models.rrcm import PretrainingNetwork
from rrcm_dist.training.noise_draws import pretraining_levels
from rrcm_dist.training.pretraining import prepare_pretraining
from rrcm_dist.training.pretraining_step import PretrainingStep

TOTAL_STEPS = 1000

Run = Callable[[int], None]
"""Makes step k, from its batch to the averages."""


def our_step(recipe: PretrainConfig, world: World, data: bool) -> Run:
    """Ours, on ready views or on those that the recipe's shards and workers give."""
    step: PretrainingStep
    if data:
        training = prepare_pretraining(recipe, world)
        step, batches = training.step, training.batches(0)  # type: ignore[assignment]
    else:
        step, batches = PretrainingStep(recipe, TOTAL_STEPS, world), itertools.repeat(ready_batch(recipe))

    def run(k: int) -> None:
        step.backward(next(batches), k)
        step.engine.update(recipe.optimizer.lr, recipe.optimizer.clip)
        step.after_update(k)

    return run


def released_step(recipe: PretrainConfig, world: World, data: bool, compiled: bool = False) -> Run:
    """The released one, on ready views or on those that Pillow makes of the same samples."""
    network = PretrainingNetwork(recipe.encoder, recipe.projector, recipe.noise, recipe.seed)
    step = ReleasedStep(recipe, network.state_dict(), world.device, compiled)
    batches = _released_batches(recipe, world.device) if data else itertools.repeat(_ready_views(recipe, world.device))

    def run(k: int) -> None:
        x, a, b = next(batches)
        levels = pretraining_levels(recipe, k, TOTAL_STEPS)
        step(x, a, b, (levels.t_min, levels.noisier, levels.less_noisy), torch.randn_like(x))

    return run


def _released_batches(recipe: PretrainConfig, device: torch.device) -> Iterator[Views]:
    with tempfile.TemporaryDirectory() as folder:
        files = image_files(recipe.data.train, Path(folder))
        size, batch, workers = recipe.encoder.image_size, recipe.training.batch, recipe.data.workers
        yield from released_batches(files, size, batch, workers, device)


def ready_batch(recipe: PretrainConfig) -> PretrainingBatch:
    """Random pixels, with no photometric change."""
    n, size = recipe.training.batch, recipe.encoder.image_size
    generator = torch.Generator().manual_seed(0)
    views = [torch.randint(256, (n, 3, size, size), dtype=torch.uint8, generator=generator) for _ in range(3)]
    unchanged = torch.zeros(n, COLUMNS)
    unchanged[:, Column.ORDER : Column.ORDER + JITTERS] = -1
    rows = torch.arange(n)
    whole = torch.tensor([[0, 0, size, size]] * 2, dtype=torch.int32).expand(n, 2, 4)
    return PretrainingBatch(*views, unchanged, unchanged, whole, rows, rows, [str(i) for i in range(n)], rows, 0)


def _ready_views(recipe: PretrainConfig, device: torch.device) -> Views:
    batch = ready_batch(recipe)
    x, a, b = ((view.to(device).float() / 127.5 - 1) for view in (batch.plain, batch.view_a, batch.view_b))
    return x, a, b
