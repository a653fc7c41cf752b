"""Images per second and core of the pre-training loader, beside the pipeline that MoCo-v3 and rRCM publish.

Both make the three views of the same samples, read from the same shards, in one process with one thread:
- ours: what `pretraining_loader` delivers (decoded, cropped, flipped; the photometric part is left to the device), and
  the photometric part on this CPU apart, since on a GPU it costs the core nothing;
- theirs: torchvision on Pillow images (random resized crop, colour jitter, greyscale, Gaussian blur, solarise, flip, to
  tensor, normalise; twice, and a resized centre crop).

    OMP_NUM_THREADS=1 python -m benchmarks loader --shards FOLDER --images 2000
"""

import argparse
import io
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from PIL import Image

from benchmarks.loader_memory import MIB, WorkerMemory, worker_memory
from benchmarks.loader_recipe import SIZE, loader_recipe
from benchmarks.machine import markdown_table, report
from benchmarks.released_data import centre_cropped, published_views
from rrcm_dist.data.index import DatasetIndex, load_index
from rrcm_dist.data.loaders import pretraining_loader
from rrcm_dist.data.photometric import apply_photometric
from rrcm_dist.data.reading import SampleReader
from rrcm_dist.torchvision_compat import allow_cpu_torch

BATCH = 32
ROUNDS = 3
BATCHES_KEPT = 8
"""Batches that the photometric part is measured on, made beforehand."""


def main() -> None:
    """Measure both pipelines in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", required=True, help="folder of shards (python -m shards build)")
    parser.add_argument("--images", type=int, default=1000, help="images per measurement [default: 1000]")
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    index = load_index(arguments.shards)
    images = arguments.images // BATCH * BATCH
    measured = _measure(
        {"theirs": _theirs(index), "loader": _loader(index), "photometric": _photometric(index)}, images
    )
    memory = worker_memory(index, BATCH, images // BATCH)
    title = f"Loader, three views of {SIZE} px, {images} images, best of {ROUNDS} rounds taken in turn"
    report("loader", title, f"{_table(**measured)}\n\n{_sentence(memory)}", arguments.record)


def _sentence(memory: WorkerMemory) -> str:
    return (
        f"One loading process held at most {memory.private / MIB:.0f} MiB of its own "
        f"({memory.proportional / MIB:.0f} MiB with its share of what it has in common with others)."
    )


def _table(theirs: float, loader: float, photometric: float) -> str:
    seconds_per_image = {
        "torchvision on Pillow, three views": theirs,
        "ours, as workers deliver them": loader,
        "ours, photometric part of a and b on this CPU": photometric,
        "ours, both on one core": loader + photometric,
    }
    rows = [
        {
            "on one core": name,
            "ms/image": f"{1e3 * seconds:.2f}",
            "images/s": f"{1 / seconds:.0f}",
            "torchvision = 1": f"{theirs / seconds:.2f}",
        }
        for name, seconds in seconds_per_image.items()
    ]
    return markdown_table(rows)


def _measure(pipelines: dict[str, Callable[[int], None]], images: int) -> dict[str, float]:
    """Seconds per image of each, the best of several rounds; taken in turn, so that all see the same machine."""
    best = dict.fromkeys(pipelines, float("inf"))
    for _ in range(ROUNDS):
        for name, run in pipelines.items():
            run(BATCH)
            start = time.perf_counter()
            run(images)
            best[name] = min(best[name], (time.perf_counter() - start) / images)
    return best


def _loader(index: DatasetIndex) -> Callable[[int], None]:
    config, order = loader_recipe(index, BATCH, workers=0)

    def run(images: int) -> None:
        for batch in pretraining_loader(index, order, config, 0, 1, 0, images // BATCH):
            assert len(batch.plain) == BATCH

    return run


def _photometric(index: DatasetIndex) -> Callable[[int], None]:
    config, order = loader_recipe(index, BATCH, workers=0)
    ready = list(pretraining_loader(index, order, config, 0, 1, 0, BATCHES_KEPT))

    def run(images: int) -> None:
        for step in range(images // BATCH):
            batch = ready[step % BATCHES_KEPT]
            apply_photometric(batch.view_a, batch.photometric_a)
            apply_photometric(batch.view_b, batch.photometric_b)

    return run


def _theirs(index: DatasetIndex) -> Callable[[int], None]:
    _, order = loader_recipe(index, BATCH, workers=0)
    allow_cpu_torch()
    reader, (plain, view_a, view_b) = SampleReader(index), published_views(SIZE)

    def run(images: int) -> None:
        for step in range(images // BATCH):
            pictures = [
                Image.open(io.BytesIO(reader.read(sample))).convert("RGB") for sample in order.global_batch(step)
            ]
            torch.stack([plain(centre_cropped(picture, SIZE)) for picture in pictures])
            for view in (view_a, view_b):
                torch.stack([view(picture) for picture in pictures])

    return run
