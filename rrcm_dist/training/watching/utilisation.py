"""What the device could do at most, for MFU, and how much memory a rank holds."""

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from rrcm_dist.config.gpus import GPUS
from rrcm_dist.config.parts import TrainingConfig

log = logging.getLogger(__name__)

MATRIX_SIDE = 1024
"""Of the product that a CPU's peak is measured by: large enough to be limited by arithmetic, 2 GFLOP."""
MEASURED_SECONDS = 0.2
PROCESS_STATUS = Path("/proc/self/status")
MEMORY_FIELDS = {"VmRSS": "memory_gb", "VmHWM": "memory_peak_gb"}


@dataclass(frozen=True)
class DevicePeak:
    """The most a rank's device can do."""

    flops: float | None
    """FLOP/s; None where it is not known: there is no MFU then."""
    source: str
    """Where the number is from, in words."""


def device_peak(training: TrainingConfig, device: torch.device) -> DevicePeak:
    """The recipe's `device_tflops`; else the GPU's published peak at the run's precision, or what this CPU reaches in
    a matrix product with the process's threads, measured in 0.2 s."""
    if training.device_tflops is not None:
        return DevicePeak(training.device_tflops * 1e12, "training.device_tflops")
    if device.type == "cuda":
        return _published(torch.cuda.get_device_name(device), training.precision)
    threads = torch.get_num_threads()
    source = f"measured by a {training.precision} matrix product on {threads} thread{'s' if threads > 1 else ''}"
    return DevicePeak(_measured_flops(training.precision), source)


def _published(name: str, precision: str) -> DevicePeak:
    """By the kind that is a word of the device's name: 'NVIDIA A100-SXM4-80GB' is an A100."""
    words = name.upper().replace("-", " ").split()
    kinds = [gpu for gpu in GPUS.values() if gpu.name.split("-")[0].upper() in words]
    if not kinds:
        log.warning("the peak of %s is not known, so there is no MFU: give training.device_tflops", name)
        return DevicePeak(None, f"not known for {name}")
    tflops = kinds[0].half_tflops if precision == "bf16" else kinds[0].single_tflops
    return DevicePeak(tflops * 1e12, f"published for {kinds[0].name} at {precision}")


def _measured_flops(precision: str) -> float:
    """FLOP/s of the best of the products done in the time: others on the machine only ever slow one down."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix, best_seconds = torch.ones(MATRIX_SIDE, MATRIX_SIDE, dtype=dtype), float("inf")
    end = time.perf_counter() + MEASURED_SECONDS
    while (start := time.perf_counter()) < end:
        matrix @ matrix
        best_seconds = min(best_seconds, time.perf_counter() - start)
    return 2 * MATRIX_SIDE**3 / best_seconds


def memory(device: torch.device) -> dict[str, float]:
    """GB in use now and at most, by the metrics' names.

    CUDA: tensors on the GPU, at most since the last call. CPU: the process's resident memory, at most since its start;
    empty where the system has no /proc.
    """
    if device.type == "cuda":
        now, peak = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return {"memory_gb": now / 1e9, "memory_peak_gb": peak / 1e9}
    found = {}
    with suppress(OSError):
        for line in PROCESS_STATUS.read_text().splitlines():
            field, _, value = line.partition(":")
            if field in MEMORY_FIELDS:
                found[MEMORY_FIELDS[field]] = int(value.split()[0]) * 1024 / 1e9  # given in kB
    return found
