"""What a run tells: a line of metrics.jsonl, Weights & Biases, and the note beside the progress bar."""

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.distributed.collectives import ranks, sum_over_ranks
from rrcm_dist.distributed.world import World
from rrcm_dist.training.run_folder import RunFolder
from rrcm_dist.training.tracking import Tracker


class Metrics:
    """Sums of loss parts, kept on the device and reduced over ranks only when they are logged."""

    def __init__(self, recipe: PretrainConfig | FinetuneConfig, folder: RunFolder, world: World) -> None:
        """Every rank must call it; raises as `Tracker` does."""
        self._folder, self._world, self._batch = folder, world, recipe.training.batch
        self._tracker = Tracker(recipe, folder.path, world)
        self._sums: dict[str, Tensor] = {}
        self._steps, self._since = 0, time.monotonic()

    def add(self, parts: Mapping[str, Tensor]) -> None:
        """Loss parts of one step: scalars, means over the rank's rows."""
        for name, value in parts.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._steps += 1

    def log_steps(self, step: int, **more: float | int | None) -> str:
        """Log the means since the last call; every rank must call it. Returns a note for the progress bar."""
        names = sorted(self._sums)
        sums = sum_over_ranks(torch.stack([self._sums[name] for name in names])) / (ranks() * self._steps)
        means = dict(zip(names, sums.tolist(), strict=True))
        now = time.monotonic()
        images_per_second = self._steps * self._batch / max(now - self._since, 1e-9)
        self._sums, self._steps, self._since = {}, 0, now
        present = {name: value for name, value in more.items() if value is not None}
        self._write(step, {**means, "images_per_second": round(images_per_second, 1), **present})
        return "  ".join(
            [*(f"{name} {value:.3f}" for name, value in means.items()), f"{images_per_second:.0f} images/s"]
        )

    def log_evaluation(self, step: int, results: Mapping[str, float]) -> None:
        """Log results of an evaluation; its time does not count in the next images/s."""
        if results:
            self._write(step, dict(results))
        self._since = time.monotonic()

    def close(self) -> None:
        """Finish tracking."""
        self._tracker.close()

    def _write(self, step: int, values: dict[str, Any]) -> None:
        if not self._world.is_main:
            return
        values = {"step": step, "samples_seen": step * self._batch, **values}
        self._folder.log({name: _finite(value) for name, value in values.items()})
        self._tracker.log(values)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
