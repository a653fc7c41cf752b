"""Certification in one process: what is missing is drawn, counted and put into the ledger; logs are written from it.

The output folder:

    ledger.sqlite        every block's counts (see `ledger_file`), readable while it is written
    ledger.sqlite.lock   held by the process that writes
    sigma_0.25.tsv …     one log a noise level, written when all its images are done
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from rrcm_dist.certification.blocks import Block
from rrcm_dist.certification.images import ImageSet, describe_selection, images_of_shards
from rrcm_dist.certification.ledger.file import RunIdentity
from rrcm_dist.certification.ledger.reader import LedgerReader
from rrcm_dist.certification.ledger.writer import Ledger
from rrcm_dist.certification.log import log_name, write_log
from rrcm_dist.certification.plan import missing_blocks, planned_draws
from rrcm_dist.certification.statistics.certificates import Certificate
from rrcm_dist.certification.workers.classifiers import build_classifier, check_image_size, identity_hash, source_of
from rrcm_dist.certification.workers.counting import BlockCounter
from rrcm_dist.config.schema import CertifyConfig
from rrcm_dist.data.index import load_index
from rrcm_dist.progress import Bar, progress_bar

LEDGER_FILE = "ledger.sqlite"


@dataclass(frozen=True)
class CertifiedSigma:
    """What one noise level came to."""

    sigma: float
    log: Path
    certificates: list[Certificate]
    """One an image of the ledger that has all its draws, by sample id."""


@dataclass(frozen=True)
class CertificationResult:
    """What a run came to."""

    ledger: Path
    levels: list[CertifiedSigma]
    """In the recipe's order."""


def certify(
    config: CertifyConfig, device: torch.device, images: ImageSet | None = None, show: bool = True
) -> CertificationResult:
    """Certify the recipe's images at each of its noise levels; draw only what the ledger in `config.output` lacks.

    `images` stands in for the recipe's shards. May be killed at any time and called again: the ledger ends with the
    same counts. Raises `InvalidInput` and `RunFailure`; what was counted before stays in the ledger.
    """
    for c in config.classifiers:
        check_image_size(c, config.image_size)
    if images is None:
        images = images_of_shards(load_index(config.data), config.image_size, config.images)
    if show:
        print(describe_selection(config.images, images), file=sys.stderr)
    classifiers = {c.sigma: build_classifier(c, config.attention, device, config.precision) for c in config.classifiers}
    ledger_path = Path(config.output) / LEDGER_FILE
    levels = []
    with Ledger(ledger_path, run_identity(config, images, device), config.n, config.name) as ledger:
        for c in config.classifiers:
            identity = identity_hash(classifiers[c.sigma], source_of(c), config.image_size, device)
            ledger.set_classifier(c.sigma, identity, source_of(c))
        ledger.add_images((image.image, image.key, image.label) for image in images.images)
        work = {sigma: missing(ledger, config, images, sigma) for sigma in classifiers}
        with _progress(config, images, work, show) as progress:
            for c in config.classifiers:
                sigma = c.sigma
                counter = BlockCounter(
                    classifiers[sigma], config.seed, images.classes, device, config.device_batch, config.precision,
                    source_of(c),
                )  # fmt: skip
                _draw(ledger, counter, images, work[sigma], progress)
                ledger.commit()
                levels.append(_write_log(ledger_path, sigma))
    return CertificationResult(ledger_path, levels)


def run_identity(config: CertifyConfig, images: ImageSet, device: torch.device) -> RunIdentity:
    """What the counts of this recipe on this kind of device must share with those already in a ledger."""
    return RunIdentity(
        seed=config.seed, n0=config.n0, alpha=config.alpha, block=config.block, dataset=images.identity,
        classes=images.classes, image_size=config.image_size, noise=device.type, precision=config.precision,
    )  # fmt: skip


def missing(ledger: Ledger, config: CertifyConfig, images: ImageSet, sigma: float) -> dict[int, list[Block]]:
    """The blocks that the ledger lacks at `sigma`, by image; images that lack none are left out."""
    planned = planned_draws(config.n0, config.n, config.block)
    work = {}
    for image in images.images:
        blocks = list(missing_blocks(image.image, image.key, sigma, planned, ledger.held(sigma, image.image)))
        if blocks:
            work[image.image] = blocks
    return work


def _draw(
    ledger: Ledger, counter: BlockCounter, images: ImageSet, work: dict[int, list[Block]], progress: "_Progress"
) -> None:
    for sample_id, pixels in images.read(list(work)):
        for block in work[sample_id]:
            ledger.add([counter.count(pixels, block)])
            progress.count(block, ends_image=block is work[sample_id][-1])


def _write_log(ledger_path: Path, sigma: float) -> CertifiedSigma:
    with LedgerReader(ledger_path) as reader:
        certificates = reader.certificates(sigma)
    log = ledger_path.parent / log_name(sigma)
    write_log(log, certificates)
    return CertifiedSigma(sigma, log, certificates)


@contextmanager
def _progress(
    config: CertifyConfig, images: ImageSet, work: dict[float, dict[int, list[Block]]], show: bool
) -> Iterator["_Progress"]:
    certificates = len(images.images) * len(work)
    unfinished = sum(len(level) for level in work.values())
    missing_now = sum(len(blocks) for level in work.values() for blocks in level.values())
    blocks = certificates * sum(len(draws) for draws in planned_draws(config.n0, config.n, config.block).values())
    with progress_bar("certify", blocks, blocks - missing_now, "blocks", show and missing_now > 0) as bar:
        yield _Progress(bar, certificates - unfinished, certificates)


class _Progress:
    """What stands beside the bar: images done of those asked for, over all noise levels, and draws per second."""

    def __init__(self, bar: Bar, images_done: int, images: int) -> None:
        self._bar, self._images_done, self._images = bar, images_done, images
        self._draws, self._start = 0, time.perf_counter()

    def count(self, block: Block, ends_image: bool) -> None:
        self._draws += block.draws
        self._images_done += ends_image
        rate = self._draws / max(time.perf_counter() - self._start, 1e-9)
        self._bar.advance(1, f"images {self._images_done}/{self._images}  {rate:,.0f} draws/s")
