"""Size of a ledger of 1 500 certificates of 100 000 draws each, and the time to report on it.

Counts are made up (1000 classes, of which some occur), everything else is real: blocks of 1 000 draws written through
the ledger's writer, read by `rrcm report`. The peer is a plain table of one integer a class and block, as raw counts
would lie in a NumPy file.

    python -m benchmarks certification_ledger
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import markdown_table, report
from rrcm_dist.certification.blocks import Block, BlockCounts
from rrcm_dist.certification.images import images_of_tensor
from rrcm_dist.certification.ledger.file import RunIdentity
from rrcm_dist.certification.ledger.writer import Ledger
from rrcm_dist.certification.plan import planned_blocks
from rrcm_dist.config.schema import SelectionConfig
from rrcm_dist.reporting.certificates import Source
from rrcm_dist.reporting.report import build_report

SIGMAS, IMAGES, N, BLOCK, CLASSES = (0.25, 0.5, 1.0), 500, 100_000, 1000, 1000


def main() -> None:
    """Write the ledger, then report on it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger.sqlite"
        blocks = _write(ledger)
        megabytes = ledger.stat().st_size / 1e6
        start = time.perf_counter()
        build_report([Source(ledger)], dataset="none").json()
        numbers = time.perf_counter() - start
        command = [sys.executable, "-m", "rrcm_dist.cli.main", "report", str(ledger), "--output", f"{folder}/report"]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        page = time.perf_counter() - start
    plain = blocks * CLASSES * 4 / 1e6
    rows = [
        {"what": "ledger", "": f"{megabytes:.1f} MB", "limit": "200 MB"},
        {"what": "plain int32 table of the same counts", "": f"{plain:.0f} MB", "limit": ""},
        {"what": "all numbers of the report, in a running process", "": f"{numbers:.2f} s", "limit": "2 s"},
        {"what": "`rrcm report` with page, tables and figures", "": f"{page:.2f} s", "limit": ""},
    ]
    title = f"Ledger of {len(SIGMAS) * IMAGES} certificates of {N} draws, {blocks} blocks"
    report("certification_ledger", title, markdown_table(rows), chosen.record)


def _write(path: Path) -> int:
    pixels = torch.zeros((1, 3, 8, 8), dtype=torch.uint8).expand(IMAGES, -1, -1, -1)
    images = images_of_tensor(pixels, [i % CLASSES for i in range(IMAGES)], CLASSES, SelectionConfig())
    planned = planned_blocks(100, N, BLOCK)
    generator = np.random.default_rng(0)
    identity = RunIdentity(0, 100, 0.001, BLOCK, images.identity, CLASSES, 224, "cuda", "bf16")
    with Ledger(path, identity, N, "benchmark") as ledger:
        for sigma in SIGMAS:
            ledger.set_classifier(sigma, "0" * 64, "none")
            ledger.add_images((image.image, image.key, image.label) for image in images.images)
            for image in images.images:
                likely = np.append(np.full(CLASSES - 20, 1e-5), generator.dirichlet(np.full(20, 0.2)))
                likely = np.roll(likely / likely.sum(), image.label)
                ledger.add(
                    BlockCounts(
                        Block(image.image, image.key, sigma, stage, number, draws),
                        generator.multinomial(draws, likely), "host", 0.28,
                    )
                    for stage, number, draws in planned
                )  # fmt: skip
    return len(SIGMAS) * IMAGES * len(planned)
