"""What a run tells: a line of metrics.jsonl, Weights & Biases, and the note beside the progress bar."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from rrcm_dist.config.keys import TrainingRecipe
from rrcm_dist.distributed.collectives import gather_over_ranks
from rrcm_dist.distributed.waiting import GATHERS
from rrcm_dist.distributed.world import World
from rrcm_dist.training.run_folder import RunFolder
from rrcm_dist.training.watching.tracking import Tracker
from rrcm_dist.training.watching.utilisation import DevicePeak, memory
from rrcm_dist.training.work import Work

MEASURED = ("images_per_second", "mfu", "data_wait_share", "gather_share", "memory_gb", "memory_peak_gb")
"""Metrics that tell of the machine: two runs of one recipe agree in all others."""

Batch = TypeVar("Batch")


class Metrics:
    """Sums of loss parts, kept on the device and reduced over ranks only when they are logged."""

    def __init__(self, recipe: TrainingRecipe, folder: RunFolder, world: World, peak: DevicePeak, work: Work) -> None:
        """Every rank must call it; raises as `Tracker` does."""
        self._folder, self._world, self._batch = folder, world, recipe.training.batch
        self._tracker = Tracker(recipe, folder.path, world)
        self._work, self._peak_flops = work, peak.flops
        self._sums: dict[str, Tensor] = {}
        self._start_interval()

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; the time until each is there counts as waiting for data."""
        while True:
            asked = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._data_seconds += time.monotonic() - asked
            yield batch

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is done within is no part of a step: its time counts in no speed and no share."""
        start = time.monotonic()
        yield
        self._since += time.monotonic() - start

    def add(self, parts: Mapping[str, Tensor]) -> None:
        """Loss parts of one step: scalars, means over the rank's rows."""
        for name, value in parts.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._steps += 1

    def log_steps(self, step: int, **more: float | int | None) -> str:
        """Log what the steps since the last call were like; every rank must call it. Returns a note for the progress
        bar."""
        names = sorted(self._sums)
        gather_seconds, held = GATHERS.take(), memory(self._world.device)
        # Here the host waits for the device, so that the time below is that of the steps.
        ranks = self._over_ranks(names, [self._data_seconds, gather_seconds, *held.values()])
        seconds = max(time.monotonic() - self._since, 1e-9)
        means = dict(zip(names, (ranks.mean(dim=0)[: len(names)] / self._steps).tolist(), strict=True))
        data_seconds, gather_seconds = float(ranks[:, len(names)].max()), float(ranks[:, len(names) + 1].mean())
        measured = {
            "images_per_second": round(self._steps * self._batch / seconds, 1),
            **self._mfu(seconds),
            "data_wait_share": round(data_seconds / seconds, 4),
            "gather_share": round(gather_seconds / seconds, 4),
            **{
                name: round(float(most), 3) for name, most in zip(held, ranks[:, len(names) + 2 :].amax(0), strict=True)
            },
        }
        self._start_interval()
        self._write(step, {**means, **measured, **{name: value for name, value in more.items() if value is not None}})
        return _note(means, measured)

    def log_evaluation(self, step: int, results: Mapping[str, float]) -> None:
        """Log results of an evaluation."""
        if results:
            self._write(step, dict(results))

    def close(self) -> None:
        """Finish tracking."""
        self._tracker.close()

    def _start_interval(self) -> None:
        self._sums.clear()
        self._steps, self._data_seconds, self._since = 0, 0.0, time.monotonic()

    def _over_ranks(self, names: list[str], seconds_and_bytes: list[float]) -> Tensor:
        """(ranks, metrics) float64 on the host: sums of loss parts, then what the host knows."""
        device = self._world.device
        sums = torch.stack([self._sums[name] for name in names]).double()
        own = torch.cat([sums, torch.tensor(seconds_and_bytes, dtype=torch.float64, device=device)])
        return gather_over_ranks(own[None]).cpu()

    def _mfu(self, seconds: float) -> dict[str, float]:
        if self._peak_flops is None:
            return {}
        flops = self._steps * self._work.step_flops
        return {"mfu": round(flops / (seconds * self._world.size * self._peak_flops), 4)}

    def _write(self, step: int, values: dict[str, Any]) -> None:
        if not self._world.is_main:
            return
        so_far = {"samples_seen": self._work.samples(step, self._batch), "petaflop": self._work.flops(step) / 1e15}
        values = {"step": step, **so_far, **values}
        self._folder.log({name: _finite(value) for name, value in values.items()})
        self._tracker.log(values)


def _note(means: Mapping[str, float], measured: Mapping[str, float]) -> str:
    """The short form, for the progress bar."""
    parts = [f"loss {means['loss']:.3f}", f"{measured['images_per_second']:.0f} images/s"]
    if "mfu" in measured:
        parts.append(f"MFU {measured['mfu']:.0%}")
    parts += [
        f"{what} {measured[name]:.0%}" for what, name in (("data", "data_wait_share"), ("gather", "gather_share"))
    ]
    if "memory_peak_gb" in measured:
        parts.append(f"{measured['memory_peak_gb']:.1f} GB")
    parts += [f"{name} {value:.3f}" for name, value in means.items() if name != "loss"]
    return "  ".join(parts)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
