"""What more Ray workers bring: the same certification with one and with several, each of one CPU, on one machine.

Real: a Ray of its own, actors, queue, ledger. Timed from when all workers are ready to the last block in the ledger; a
fresh ledger each time, rounds taken in turn. The limit is as many times the speed as there are workers, if there are as
many idle cores.

    python -m benchmarks certification_pool --workers 2
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.machine import markdown_table, report
from rrcm_dist.certification.images import ImageSet, images_of_tensor
from rrcm_dist.certification.ledger.file import RunIdentity
from rrcm_dist.certification.ledger.writer import Ledger
from rrcm_dist.certification.on_ray.cluster import ray_cluster
from rrcm_dist.certification.on_ray.counting import CountingSetup
from rrcm_dist.certification.on_ray.crew import RayCrew, Share
from rrcm_dist.certification.plan import planned_blocks
from rrcm_dist.certification.pool.driver import Driver
from rrcm_dist.certification.smoothing.work import Counting, Level
from rrcm_dist.certification.workers.classifiers import identity_hash
from rrcm_dist.certification.workers.worker import CountingRules
from rrcm_dist.config.schema import ClassifierConfig, SelectionConfig

SIGMA, CLASSES, SIZE = 0.5, 10, 32
ROUNDS = 3


def main() -> None:
    """Time one worker and several, in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="workers to compare with one [default: 2]")
    parser.add_argument("--images", type=int, default=8, help="images [default: 8]")
    parser.add_argument("--n", type=int, default=4000, help="draws per image [default: 4000]")
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    chosen = parser.parse_args()
    seconds: dict[int, float] = {}
    with ray_cluster(None, chosen.workers, dashboard=False), tempfile.TemporaryDirectory() as folder:
        for turn in range(ROUNDS):
            for workers in (1, chosen.workers):
                path = Path(folder) / f"{turn}-{workers}.sqlite"
                taken = _certify(workers, chosen.images, chosen.n, path)
                seconds[workers] = min(seconds.get(workers, taken), taken)
    draws = chosen.images * (100 + chosen.n)
    rows = [
        {"workers": str(w), "seconds": f"{s:.2f}", "draws/s": f"{draws / s:,.0f}", "one = 1": f"{seconds[1] / s:.3f}"}
        for w, s in seconds.items()
    ]
    title = f"Certification by Ray workers of one CPU each on {os.cpu_count()} cores, {draws} draws, best of {ROUNDS}"
    report("certification_pool", title, markdown_table(rows), chosen.record)


def network() -> nn.Module:
    """A convolutional network on 32 × 32 images, about a millisecond a draw."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1, stride=2), nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(1024, CLASSES),
        )  # fmt: skip


def _certify(workers: int, images: int, n: int, path: Path) -> float:
    image_set, planned = _images(images), planned_blocks(100, n, 500)
    source = ClassifierConfig(sigma=SIGMA, function="benchmarks.certification_pool:network")
    weights = identity_hash(network(), "", SIZE, torch.device("cpu"))
    setup = CountingSetup(
        (source,), {}, {SIGMA: weights}, CountingRules(0, CLASSES, 100, "fp32"), SIZE, "auto", "cpu", 1, os.getcwd()
    )
    crew = RayCrew(setup, Share(cpus=1, gpus=0), workers)
    while len(crew.workers()) < workers:
        crew.collect()
    identity = RunIdentity(0, 100, 0.001, 500, image_set.identity, CLASSES, SIZE, "cpu", "fp32")
    with Ledger(path, identity, n) as ledger:
        ledger.set_classifier(SIGMA, weights, "network")
        ledger.add_images((image.image, image.key, image.label) for image in image_set.images)
        driver = Driver(Counting(ledger, image_set, [Level(SIGMA, planned, 0.001, (0.0,), None)]), image_set, crew)
        start = time.perf_counter()
        driver.run()
        taken = time.perf_counter() - start
    crew.close()
    return taken


def _images(count: int) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, SIZE, SIZE), dtype=np.uint8)
    return images_of_tensor(torch.from_numpy(pixels), [0] * count, CLASSES, SelectionConfig())
