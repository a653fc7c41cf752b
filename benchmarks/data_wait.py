"""Share of step time spent waiting for batches, where the loader is barely as fast as the step, and somewhat faster.

The loader delivers to a loop that does nothing else: so many seconds per batch it needs. Then its batches go to steps
that take as long, and 10 % and 25 % longer, and the time inside next(batch) is counted. The steps sleep, as a training
process does whose device computes: the workers have the cores to themselves.

    OMP_NUM_THREADS=1 python -m benchmarks data_wait --shards FOLDER --workers 1
"""

import argparse
import time
from collections.abc import Iterator

import torch

from benchmarks.loader_recipe import SIZE, loader_recipe
from benchmarks.machine import markdown_table, report
from rrcm_dist.data.batches import PretrainingBatch
from rrcm_dist.data.index import DatasetIndex, load_index
from rrcm_dist.data.loaders import pretraining_loader

MARGINS = (0.0, 0.1, 0.25)
"""By how much a step takes longer than the loader for its batch."""


def main() -> None:
    """Measure the loader alone, then what steps wait for it, and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", required=True, help="folder of shards (python -m shards build)")
    parser.add_argument("--workers", type=int, default=1, help="loading processes; leave a core free [default: 1]")
    parser.add_argument("--batch", type=int, default=256, help="images per step [default: 256]")
    parser.add_argument("--steps", type=int, default=40, help="steps per measurement [default: 40]")
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    index = load_index(arguments.shards)

    def waits(step_seconds: float) -> list[float]:
        batches = _loader(index, arguments.workers, arguments.batch, arguments.steps + 1)
        return _waits(batches, arguments.steps, step_seconds)

    alone = sum(waits(0.0)) / arguments.steps
    rows = [_row(margin, alone * (1 + margin), waits(alone * (1 + margin))) for margin in MARGINS]
    title = (
        f"Waiting for data: batches of {arguments.batch}, three views of {SIZE} px, {arguments.workers} workers, "
        f"{arguments.steps} steps; the loader alone delivers {arguments.batch / alone:.0f} images/s"
    )
    report("data_wait", title, markdown_table(rows), arguments.record)


def _row(margin: float, step_seconds: float, waits: list[float]) -> dict[str, str]:
    waited = sum(waits)
    return {
        "loader faster than the step by": f"{margin:.0%}",
        "step, ms": f"{1e3 * step_seconds:.0f}",
        "waiting per step, ms": f"{1e3 * waited / len(waits):.1f}",
        "longest, ms": f"{1e3 * max(waits):.1f}",
        "share of step time": f"{waited / (waited + len(waits) * step_seconds):.1%}",
    }


def _waits(batches: Iterator[PretrainingBatch], steps: int, step_seconds: float) -> list[float]:
    """Seconds inside next(batch), a step each; the workers' start and the first batch are left out."""
    waits = []
    next(batches)
    for _ in range(steps):
        time.sleep(step_seconds)
        start = time.perf_counter()
        next(batches)
        waits.append(time.perf_counter() - start)
    return waits


def _loader(index: DatasetIndex, workers: int, batch: int, steps: int) -> Iterator[PretrainingBatch]:
    config, order = loader_recipe(index, batch, workers)
    return pretraining_loader(index, order, config, 0, 1, 0, steps)


if __name__ == "__main__":
    main()
