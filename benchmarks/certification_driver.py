"""Blocks per second that the driver of a certification keeps up with, and its memory, if workers answer at once.

Real Ray actors, a real ledger, the real queue: only the counting is left out (each worker returns prepared counts of
the right size). In the same run, as limits: the same calls to the same actors without queue and ledger, and the ledger
alone.

    python -m benchmarks certification_driver --blocks 1000000 --workers 2
"""

import argparse
import os
import socket
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import markdown_table, report
from rrcm_dist.certification.blocks import Block, BlockCounts, Stage, pack_counts, spread_counts
from rrcm_dist.certification.images import ImageSet, images_of_tensor
from rrcm_dist.certification.ledger.file import RunIdentity
from rrcm_dist.certification.ledger.writer import Ledger
from rrcm_dist.certification.on_ray.cluster import ray_cluster
from rrcm_dist.certification.on_ray.crew import RayCrew, Share
from rrcm_dist.certification.plan import planned_blocks
from rrcm_dist.certification.pool.crew import Return
from rrcm_dist.certification.pool.driver import Driver
from rrcm_dist.certification.smoothing.work import BATCH_BLOCKS, Counting, Level
from rrcm_dist.certification.watching.snapshot import Snapshot
from rrcm_dist.certification.workers.worker import Counted
from rrcm_dist.config.schema import SelectionConfig

CLASSES = 1000
DRAWS = 1000
N = 100_000
A800_SECONDS_PER_BLOCK = 0.28
"""ViT-B/16 at 224 px, 1000 draws."""


def main() -> None:
    """Run the driver, then the two limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=200_000, help="blocks to drive [default: 200000]")
    parser.add_argument("--workers", type=int, default=2, help="Ray actors [default: 2]")
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    images = -(-arguments.blocks // (N // DRAWS + 1))
    with tempfile.TemporaryDirectory() as folder, ray_cluster(None, arguments.workers, dashboard=False):
        crew = RayCrew(None, Share(cpus=1, gpus=0), arguments.workers, actor=AnswersAtOnce)
        _wait_for(crew, arguments.workers)
        driven, memory = _drive(crew, images, Path(folder))
        calls = _bare_calls(crew, images * (N // DRAWS + 1))
        crew.close()
        ledger = _bare_ledger(images, Path(folder))
    blocks = images * (N // DRAWS + 1)
    rows = [_row("driver: queue, Ray, ledger", driven, driven, blocks)]
    rows += [_row(f"Ray alone, {BATCH_BLOCKS} blocks a call", calls, driven, blocks)]
    rows += [_row("ledger alone", ledger, driven, blocks)]
    text = markdown_table(rows) + "\n\nDriver's memory (RSS) at a tenth, a half and the end of the run: "
    text += " / ".join(f"{megabytes:.0f}" for megabytes in memory) + " MB. At "
    text += f"{A800_SECONDS_PER_BLOCK} s a block this feeds {blocks / driven * A800_SECONDS_PER_BLOCK:,.0f} GPUs."
    report(
        "certification_driver", f"Certification driver, {blocks} blocks of {CLASSES} classes", text, arguments.record
    )


class AnswersAtOnce:
    """An actor whose counts are made up: the candidate gets nine draws of ten, a few other classes the rest."""

    def __init__(self, setup: None) -> None:
        self._packed: dict[int, bytes] = {}

    def ready(self) -> tuple[str, str]:
        return socket.gethostname(), ""

    def work(self, units: list[Block], pixels: dict[int, np.ndarray]) -> list[Counted]:
        return [Counted(self._counts(block.draws), 0.0) for block in units]

    def _counts(self, draws: int) -> bytes:
        if draws not in self._packed:
            counts = np.zeros(CLASSES, dtype=np.int64)
            counts[[7, 80, 300, 901]] = [draws - 3 * (draws // 30), *[draws // 30] * 3]
            self._packed[draws] = pack_counts(counts)
        return self._packed[draws]


class _Memory:
    """A watcher that keeps the process's resident memory as the run goes on."""

    def __init__(self, draws: int) -> None:
        self._draws, self.seen = draws, [(0.0, _resident_megabytes())]

    def update(self, snapshot: Snapshot) -> None:
        self.seen.append((snapshot.draws / self._draws, _resident_megabytes()))

    def close(self) -> None:
        pass

    def at(self, share: float) -> float:
        return min(self.seen, key=lambda moment: abs(moment[0] - share))[1]


def _wait_for(crew: RayCrew, workers: int) -> None:
    while len(crew.workers()) < workers:
        crew.collect()


def _drive(crew: RayCrew, images: int, folder: Path) -> tuple[float, list[float]]:
    image_set, planned = _images(images), planned_blocks(100, N, DRAWS)
    memory = _Memory(images * (100 + N))
    with _ledger(folder / "driven.sqlite", image_set) as ledger:
        level = Level(0.5, planned, 0.001, (0.0, 0.5), None)
        driver = Driver(Counting(ledger, image_set, [level]), image_set, crew, [memory])
        start = time.perf_counter()
        driver.run()
        return time.perf_counter() - start, [memory.at(share) for share in (0.1, 0.5, 1.0)]


def _bare_calls(crew: RayCrew, blocks: int) -> float:
    """The same calls, two a worker in flight, with nothing done before or after."""
    batch = [Block(0, "0", 0.5, Stage.ESTIMATION, number, DRAWS) for number in range(BATCH_BLOCKS)]
    pixels = {0: np.zeros((3, 32, 32), dtype=np.uint8)}
    start, returned = time.perf_counter(), 0
    while returned < blocks:
        for worker in crew.free():
            crew.submit(worker, batch, pixels)
        returns: list[Return] = crew.collect()
        returned += len(returns) * BATCH_BLOCKS
    return (time.perf_counter() - start) * blocks / returned


def _bare_ledger(images: int, folder: Path) -> float:
    counts = spread_counts(AnswersAtOnce(None)._counts(DRAWS), CLASSES)
    image_set = _images(images)
    with _ledger(folder / "alone.sqlite", image_set) as ledger:
        start = time.perf_counter()
        for image in image_set.images:
            key = image.key
            blocks = [Block(image.image, key, 0.5, Stage.ESTIMATION, i, DRAWS) for i in range(N // DRAWS + 1)]
            ledger.add([BlockCounts(block, counts, "host", 0.0) for block in blocks])
        ledger.commit()
        return time.perf_counter() - start


def _ledger(path: Path, images: ImageSet) -> Ledger:
    identity = RunIdentity(0, 100, 0.001, DRAWS, images.identity, CLASSES, 32, "cpu", "fp32")
    ledger = Ledger(path, identity, N)
    ledger.set_classifier(0.5, "0" * 64, "none")
    ledger.add_images((image.image, image.key, image.label) for image in images.images)
    return ledger


def _images(count: int) -> ImageSet:
    pixels = torch.zeros((1, 3, 32, 32), dtype=torch.uint8).expand(count, -1, -1, -1)
    return images_of_tensor(pixels, [7] * count, CLASSES, SelectionConfig())


def _resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _row(what: str, seconds: float, driven: float, blocks: int) -> dict[str, str]:
    return {"what": what, "blocks/s": f"{blocks / seconds:,.0f}", "driver = 1": f"{driven / seconds:.2f}"}
