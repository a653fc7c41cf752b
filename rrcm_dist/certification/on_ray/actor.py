"""What runs within a Ray actor: a counting worker with classifiers from the object store."""

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rrcm_dist.certification.blocks import Block
from rrcm_dist.certification.workers.classifiers import build_classifier, identity_hash, source_of, sources_of
from rrcm_dist.certification.workers.worker import Counted, CountingRules, CountingWorker, DeviceLost
from rrcm_dist.config.schema import ClassifierConfig
from rrcm_dist.errors import RRCMError


@dataclass(frozen=True)
class ActorSetup:
    """All that an actor needs, once, before the first batch."""

    classifiers: tuple[ClassifierConfig, ...]
    weights: Mapping[float, Any]
    """By σ a reference to the weights of one of ours (`models.classifier.ClassifierWeights`) in the object store, where
    they lie once a node. Any other classifier is made by its function in every actor."""
    identities: Mapping[float, str]
    """By σ the hash that the ledger knows the classifier by."""
    rules: CountingRules
    image_size: int
    attention: str
    device: str
    """cpu or cuda; Ray shows an actor its own GPU alone."""
    threads: int
    """CPU threads of torch."""
    folder: str
    """Where the driver was started: modules there can be imported, as in the driver."""


class CountingActor:
    """One worker of a Ray crew."""

    def __init__(self, setup: ActorSetup) -> None:
        self._setup = setup
        self._problem = ""
        self._worker = None
        try:
            self._worker = self._build()
        except RRCMError as error:
            self._problem = str(error)
        except Exception as error:  # whatever it is, it is told in `ready`: Ray would wrap it in a page
            self._problem = f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"

    def ready(self) -> tuple[str, str]:
        """(host, why it cannot work or '')."""
        return socket.gethostname(), self._problem

    def count(self, blocks: Sequence[Block], pixels: Mapping[int, NDArray[np.uint8]]) -> list[Counted]:
        """As `CountingWorker.count`."""
        assert self._worker is not None, "only a worker that is ready is asked"
        try:
            return self._worker.count(blocks, pixels)
        except DeviceLost:
            os._exit(1)  # a new process has a working GPU; the driver finds out which block spoils it

    def __repr__(self) -> str:
        """How Ray's dashboard and logs call it."""
        return f"rrcm certify on {socket.gethostname()} ({self._setup.device})"

    def _build(self) -> Any:
        if self._setup.folder not in sys.path:
            sys.path.insert(0, self._setup.folder)
        setup = self._setup
        torch.set_num_threads(setup.threads)
        device = torch.device(setup.device)
        if setup.device == "cuda" and not torch.cuda.is_available():
            raise RRCMError("torch sees no GPU here, though Ray gave one")
        configs = {config.sigma: config for config in setup.classifiers}
        sources = sources_of(setup.classifiers)
        worker = CountingWorker(lambda sigma: self._classifier(configs[sigma], device), sources, setup.rules, device)
        worker.load(next(iter(configs)))  # so that a worker that cannot work says so before it is given any
        return worker

    def _classifier(self, config: ClassifierConfig, device: Any) -> Any:
        setup = self._setup
        reference = setup.weights.get(config.sigma)
        if reference is not None:
            import ray

            from rrcm_dist.models.classifier import classifier_of

            return classifier_of(ray.get(reference), config.sigma, setup.attention, device, setup.rules.precision)
        classifier = build_classifier(config, setup.attention, device, setup.rules.precision)
        if identity_hash(classifier, source_of(config), setup.image_size, device) != setup.identities[config.sigma]:
            raise RRCMError(
                f"{source_of(config)} gives another network at sigma {config.sigma:g} here than where the run was "
                "started: it must be the same wherever and whenever it is called"
            )
        return classifier
