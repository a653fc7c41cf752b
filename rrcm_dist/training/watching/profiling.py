"""PyTorch's profiler for a window of steps: a trace for people to look into, and the dominating operators as text."""

import gzip
import logging
import shutil
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from rrcm_dist.config.parts import TrainingConfig
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import InvalidInput, RRCMError
from rrcm_dist.files import disk_failure, whole_file, write_text

log = logging.getLogger(__name__)

FOLDER = "profile"
TABLE_ROWS = 40


def require_window(training: TrainingConfig, total_steps: int) -> None:
    """Raise `InvalidInput` where `training.profile` names steps that the run does not have."""
    if training.profile is None:
        return
    first, count = training.profile
    if first + count > total_steps:
        raise InvalidInput(
            f"training.profile [{first}, {count}] is steps {first} to {first + count - 1}, and the run's last step is "
            f"{total_steps - 1}: name earlier ones, or training.profile=null"
        )


class Profiling:
    """Records the main rank's steps of the window, after one warm-up step where there is one before it.

    Does nothing where no window is asked for. A window that began before the step that a run is resumed at is told to
    be past; a run that ends within it writes what was recorded.
    """

    def __init__(self, training: TrainingConfig, run_folder: Path, world: World, start_step: int) -> None:
        self._folder, self._device = run_folder / FOLDER, world.device
        self._profile: Any = None
        self._window = range(0)
        if training.profile is not None and world.is_main:
            first, count = training.profile
            if first < start_step:
                log.warning("training.profile begins at step %d, which is past: nothing is recorded", first)
            else:
                self._window, self._warm_up = range(first, first + count), int(first > start_step)
        self._recorded = 0

    def __enter__(self) -> "Profiling":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish()

    def begin(self, step: int) -> None:
        """Called before each step."""
        if not self._window:
            return
        if self._profile is not None:
            self._profile.step()
        elif step == self._window.start - self._warm_up:
            self._start()
        if step == self._window.stop:
            self._finish()
        elif step in self._window:
            self._recorded += 1

    def _start(self) -> None:
        activities = [ProfilerActivity.CPU]
        if self._device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the missing warm-up, where there is no step for it
            plan = schedule(wait=0, warmup=self._warm_up, active=len(self._window), repeat=1)
        self._profile = profile(activities=activities, schedule=plan)
        self._profile.start()

    def _finish(self) -> None:
        if self._profile is None:
            return
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # what the steps have queued belongs to them
        self._profile.stop()
        if self._recorded:
            first = self._window.start
            self._write(self._folder / f"rank-0-steps-{first}-{first + self._recorded - 1}")
        self._profile, self._window = None, range(0)

    def _write(self, stem: Path) -> None:
        """`stem`.json.gz and `stem`.txt; what cannot be written is no reason to end a run."""
        trace, table = stem.with_name(stem.name + ".json.gz"), stem.with_name(stem.name + ".txt")
        on_device = "self_cuda_time_total" if self._device.type == "cuda" else "self_cpu_time_total"
        try:
            with whole_file(trace) as aside:
                self._export(aside)
            write_text(table, self._profile.key_averages().table(sort_by=on_device, row_limit=TABLE_ROWS))
        except (OSError, RRCMError) as error:
            log.warning("%s", disk_failure(error, trace) if isinstance(error, OSError) else error)
            return
        log.info("profile of steps: %s (open in Perfetto or chrome://tracing), operators in %s", trace, table)

    def _export(self, file: Path) -> None:
        plain = file.with_name(file.name + ".json")
        try:
            self._profile.export_chrome_trace(str(plain))
            with open(plain, "rb") as whole, gzip.open(file, "wb") as packed:
                shutil.copyfileobj(whole, packed)
        finally:
            plain.unlink(missing_ok=True)
