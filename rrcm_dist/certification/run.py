"""Certification as a whole: what is missing is drawn, counted and put into the ledger; logs are written from it.

The output folder:

    ledger.sqlite        every block's counts (see `ledger.file`), readable while it is written
    ledger.sqlite.lock   held by the process that writes
    sigma_0.25.tsv …     one log a noise level, written when all its images are done
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from rrcm_dist.certification.images import ImageSet, describe_selection, images_of_shards
from rrcm_dist.certification.ledger.file import RunIdentity
from rrcm_dist.certification.ledger.lock import refuse_if_written
from rrcm_dist.certification.ledger.place import LEDGER_FILE
from rrcm_dist.certification.ledger.reader import LedgerReader
from rrcm_dist.certification.ledger.reading import FailedImage
from rrcm_dist.certification.ledger.writer import Ledger
from rrcm_dist.certification.log import log_name, write_log
from rrcm_dist.certification.on_ray.counting import CountingSetup
from rrcm_dist.certification.on_ray.pool import RayPool
from rrcm_dist.certification.plan import planned_blocks
from rrcm_dist.certification.pool.crew import Crew, OwnProcess
from rrcm_dist.certification.pool.driver import Driver
from rrcm_dist.certification.smoothing.work import Counting, Level
from rrcm_dist.certification.statistics.certificates import Certificate
from rrcm_dist.certification.statistics.stopping import AdaptiveRule
from rrcm_dist.certification.watching.progress import ProgressWatcher
from rrcm_dist.certification.watching.snapshot import Watcher
from rrcm_dist.certification.workers.classifiers import (
    build_classifier,
    check_checkpoint,
    check_classes,
    identity_hash,
    source_of,
    sources_of,
)
from rrcm_dist.certification.workers.worker import CountingRules, CountingWorker
from rrcm_dist.config.schema import CertifyConfig
from rrcm_dist.data.index import load_index
from rrcm_dist.errors import InvalidInput
from rrcm_dist.progress import progress_bar


@dataclass(frozen=True)
class CertifiedSigma:
    """What one noise level came to."""

    sigma: float
    log: Path
    certificates: list[Certificate]
    """One an image of the ledger that needs no further draw, by sample id."""
    failed: list[FailedImage]
    """Images that were given up; the next start tries them again."""


@dataclass(frozen=True)
class CertificationResult:
    """What a run came to."""

    ledger: Path
    levels: list[CertifiedSigma]
    """In the recipe's order."""
    audited: int = 0
    """Blocks that a second worker counted, too."""


def certify(
    config: CertifyConfig,
    device: torch.device | None = None,
    images: ImageSet | None = None,
    show: bool = True,
    pool: RayPool | None = None,
    audit_every: int = 0,
) -> CertificationResult:
    """Certify the recipe's images at each of its noise levels; draw only what the ledger in `config.output` lacks.

    This process counts, on `device` (None: the CPU), or the workers of `pool`. `images` stands in for the recipe's
    shards. `audit_every` k > 0 has every k-th block counted by a second worker and compared. May be killed at any time
    and called again: the ledger ends with the same counts. Raises `InvalidInput` and `RunFailure`; what was counted
    before stays in the ledger.
    """
    if audit_every and pool is None:
        raise InvalidInput("an audit needs a second worker: ask for several (--workers 2), or for no audit")
    ledger_path = Path(config.output) / LEDGER_FILE
    refuse_if_written(ledger_path)
    if images is None:
        images = images_of_shards(load_index(config.data), config.image_size, config.images)
    for c in config.classifiers:
        check_checkpoint(c, config.image_size, images.classes)
    if show:
        print(describe_selection(config.images, images), file=sys.stderr)
    with ExitStack() as stack:
        own = device or CPU
        kind = stack.enter_context(pool.started(show)) if pool else own.type
        classifiers, identities = _classifiers(config, images.classes, None if pool else own)
        ledger = stack.enter_context(_ledger(ledger_path, config, images, kind, identities))
        rules = CountingRules(config.seed, images.classes, config.device_batch, config.precision)
        crew: Crew
        if pool:
            crew = pool.crew(CountingSetup.of(config, rules, identities, kind, pool.cpus_per_worker))
        else:
            crew = OwnProcess(CountingWorker(classifiers.__getitem__, sources_of(config.classifiers), rules, own))
        stack.callback(crew.close)
        with _watchers(config, pool) as watchers:
            driver = Driver(Counting(ledger, images, _levels(config)), images, crew, watchers, audit_every)
            left = driver.queue.left
            most = len(images.images) * len(config.classifiers) * (config.n0 + config.n)
            with progress_bar("certify", most, most - left, "draws", show and left > 0) as bar:
                watchers.append(ProgressWatcher(bar, left))
                driver.run()
    levels = [_write_log(ledger_path, c.sigma) for c in config.classifiers]
    return CertificationResult(ledger_path, levels, driver.queue.audited)


CPU = torch.device("cpu")


def run_identity(config: CertifyConfig, images: ImageSet, kind: str) -> RunIdentity:
    """What the counts of this recipe on this kind of device (cpu or cuda) share with those already in a ledger."""
    adaptive = config.mode == "adaptive"
    return RunIdentity(
        seed=config.seed, n0=config.n0, alpha=config.alpha, block=config.block, dataset=images.identity,
        classes=images.classes, image_size=config.image_size, noise=kind, precision=config.precision, mode=config.mode,
        first_block=config.adaptive.first_block if adaptive else 0, growth=config.adaptive.growth if adaptive else 0.0,
    )  # fmt: skip


def _classifiers(
    config: CertifyConfig, classes: int, device: torch.device | None
) -> tuple[Mapping[float, torch.nn.Module], Mapping[float, str]]:
    """The classifiers on `device` and what the ledger knows them by; with no device only the latter, one at a time."""
    kept, identities = {}, {}
    for c in config.classifiers:
        attention = config.attention if device else "sdpa"
        classifier = build_classifier(c, attention, device or CPU, config.precision)
        check_classes(classifier, source_of(c), config.image_size, classes, device or CPU)
        identities[c.sigma] = identity_hash(classifier, source_of(c), config.image_size, device or CPU)
        if device:
            kept[c.sigma] = classifier
    return kept, identities


@contextmanager
def _ledger(
    path: Path, config: CertifyConfig, images: ImageSet, kind: str, identities: Mapping[float, str]
) -> Iterator[Ledger]:
    settings = {"radii": config.radii, "adaptive": _rule_settings(config)}
    with Ledger(path, run_identity(config, images, kind), config.n, config.name, settings) as ledger:
        for c in config.classifiers:
            ledger.set_classifier(c.sigma, identities[c.sigma], source_of(c))
        ledger.add_images((image.image, image.key, image.label) for image in images.images)
        yield ledger


def _levels(config: CertifyConfig) -> list[Level]:
    adaptive = config.mode == "adaptive"
    growth = (config.adaptive.first_block, config.adaptive.growth) if adaptive else ()
    planned = planned_blocks(config.n0, config.n, config.block, *growth)

    def rule(sigma: float) -> AdaptiveRule | None:
        given = _rule_settings(config)
        return AdaptiveRule.of(sigma, config.radii, config.n, config.alpha, **given) if adaptive else None

    return [Level(c.sigma, planned, config.alpha, config.radii, rule(c.sigma)) for c in config.classifiers]


def _rule_settings(config: CertifyConfig) -> dict[str, float]:
    """What the stopping rule is told besides radii, n and α."""
    return config.adaptive.model_dump(exclude={"first_block", "growth"})


@contextmanager
def _watchers(config: CertifyConfig, pool: RayPool | None) -> Iterator[list[Watcher]]:
    watchers: list[Watcher] = []
    try:
        if pool is not None:
            watchers += pool.watchers(config.name, Path(config.output) / LEDGER_FILE)
        if config.tracking.wandb != "off":
            from rrcm_dist.certification.watching.wandb_curve import WandbCurve

            watchers.append(WandbCurve(config, Path(config.output)))
        yield watchers
    finally:
        for watcher in watchers:
            watcher.close()


def _write_log(ledger_path: Path, sigma: float) -> CertifiedSigma:
    with LedgerReader(ledger_path) as reader:
        certificates, failed, alpha = reader.certificates(sigma), reader.failures(sigma), reader.identity.alpha
    log = ledger_path.parent / log_name(sigma)
    write_log(log, certificates, sigma, alpha, failed)
    return CertifiedSigma(sigma, log, certificates, failed)
