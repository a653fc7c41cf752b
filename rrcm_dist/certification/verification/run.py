"""Verification as a whole: what is missing is verified and attacked, and put into the ledger.

The output folder:

    ledger.sqlite        every image's margins at every ε (see `ledger.verification`), readable while it is written
    ledger.sqlite.lock   held by the process that writes
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from rrcm_dist.certification.images import ImageSet, describe_selection, images_of_shards
from rrcm_dist.certification.ledger.lock import refuse_if_written
from rrcm_dist.certification.ledger.place import LEDGER_FILE
from rrcm_dist.certification.ledger.reading import FailedImage
from rrcm_dist.certification.ledger.verification import (
    StoredVerification,
    VerificationIdentity,
    VerificationLedger,
    VerificationReader,
)
from rrcm_dist.certification.on_ray.pool import RayPool
from rrcm_dist.certification.pool.crew import Crew, OwnProcess
from rrcm_dist.certification.pool.driver import Driver
from rrcm_dist.certification.verification.networks import NetworkToVerify, check_outputs, network_of
from rrcm_dist.certification.verification.on_ray import VerificationSetup
from rrcm_dist.certification.verification.watching import VerificationProgress
from rrcm_dist.certification.verification.work import Verifying
from rrcm_dist.certification.verification.worker import VerificationRules, VerificationWorker, images_per_pass
from rrcm_dist.certification.watching.snapshot import Watcher
from rrcm_dist.config.verify import VerifyConfig, passes_per_image
from rrcm_dist.data.index import load_index
from rrcm_dist.progress import progress_bar

CPU = torch.device("cpu")


@dataclass(frozen=True)
class VerifiedEpsilon:
    """What one ε came to."""

    epsilon: float
    images: list[StoredVerification]
    """Those of the ledger that have a result, by sample id."""
    failed: list[FailedImage]
    """Images that were given up; the next start tries them again."""

    @property
    def contradictions(self) -> list[StoredVerification]:
        """Images that the bounds call safe and PGD has broken: none, unless something is wrong."""
        return [image for image in self.images if image.contradicts]


@dataclass(frozen=True)
class VerificationResult:
    """What a run came to."""

    ledger: Path
    epsilons: list[VerifiedEpsilon]
    """In the recipe's order."""


def verify(
    config: VerifyConfig,
    device: torch.device | None = None,
    images: ImageSet | None = None,
    show: bool = True,
    pool: RayPool | None = None,
) -> VerificationResult:
    """Verify the recipe's images at each of its ε; do only what the ledger in `config.output` lacks.

    This process works, on `device` (None: the CPU), or the workers of `pool`. `images` stands in for the recipe's
    shards. May be killed at any time and called again: on the CPU the ledger ends with the same numbers, whatever the
    workers; on CUDA, with those of the kind of GPU and `device_batch`. Raises `InvalidInput` and `RunFailure`; what was
    done before stays in the ledger. Contradictions are for the caller to look at.
    """
    path = Path(config.output) / LEDGER_FILE
    refuse_if_written(path)
    found = network_of(config)
    if images is None:
        images = images_of_shards(load_index(config.data), config.image_size, config.images)
    check_outputs(found, config, images.classes)
    if show:
        print(describe_selection(config.images, images), file=sys.stderr)
    rules = VerificationRules(config.seed, config.attack, config.device_batch)
    with ExitStack() as stack:
        own = device or CPU
        kind = stack.enter_context(pool.started(show)) if pool else own.type
        ledger = stack.enter_context(_ledger(path, config, images, kind, found))
        crew: Crew
        if pool:
            crew = pool.crew(VerificationSetup.of(config, found, rules, kind, pool.cpus_per_worker))
        else:
            crew = OwnProcess(VerificationWorker(found.network, found.channels, config.source, rules, own))
        stack.callback(crew.close)
        with _watchers(config) as watchers:
            work = Verifying(ledger, images, config, images_per_pass(rules, torch.device(kind)))
            driver = Driver(work, images, crew, watchers)
            left = driver.queue.left
            most = len(images.images) * len(config.epsilons) * passes_per_image(config.attack)
            with progress_bar("verify", most, most - left, "passes", show and left > 0) as bar:
                watchers.append(VerificationProgress(bar, left))
                driver.run()
    return read_result(path, config.epsilons)


def read_result(ledger: Path, epsilons: tuple[float, ...]) -> VerificationResult:
    """What the ledger holds at `epsilons`."""
    with VerificationReader(ledger) as reader:
        return VerificationResult(
            ledger, [VerifiedEpsilon(e, reader.verified(e), reader.failures(e)) for e in epsilons]
        )


@contextmanager
def _ledger(
    path: Path, config: VerifyConfig, images: ImageSet, kind: str, found: NetworkToVerify
) -> Iterator[VerificationLedger]:
    identity = VerificationIdentity(
        seed=config.seed, weights=found.weights, attack_steps=config.attack.steps,
        attack_restarts=config.attack.restarts, dataset=images.identity, classes=images.classes,
        image_size=config.image_size, device=kind, precision=config.precision,
    )  # fmt: skip
    with VerificationLedger(path, identity, config.name, config.source) as ledger:
        ledger.add_epsilons(config.epsilons)
        ledger.add_images((image.image, image.key, image.label) for image in images.images)
        yield ledger


@contextmanager
def _watchers(config: VerifyConfig) -> Iterator[list[Watcher]]:
    watchers: list[Watcher] = []
    try:
        if config.tracking.wandb != "off":
            from rrcm_dist.certification.verification.watching import chart, point
            from rrcm_dist.certification.watching.wandb_curve import WandbWatcher

            watchers.append(WandbWatcher(config, Path(config.output), point, chart))
        yield watchers
    finally:
        for watcher in watchers:
            watcher.close()
