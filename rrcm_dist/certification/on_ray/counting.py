"""Counting workers on Ray: what an actor needs to be one; weights come from the object store, where they lie once a
node."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rrcm_dist.certification.workers.classifiers import build_classifier, identity_hash, source_of, sources_of
from rrcm_dist.certification.workers.worker import CountingRules, CountingWorker
from rrcm_dist.config.schema import CertifyConfig, ClassifierConfig
from rrcm_dist.errors import RRCMError


@dataclass(frozen=True)
class CountingSetup:
    """All that a counting actor needs (`on_ray.actor.WorkerSetup`)."""

    classifiers: tuple[ClassifierConfig, ...]
    weights: Mapping[float, Any]
    """By σ a reference to the weights of one of ours (`models.classifier.ClassifierWeights`) in the object store. Any
    other classifier is made by its function in every actor."""
    identities: Mapping[float, str]
    """By σ the hash that the ledger knows the classifier by."""
    rules: CountingRules
    image_size: int
    attention: str
    device: str
    threads: int
    folder: str
    command: str = "certify"

    @classmethod
    def of(
        cls, config: CertifyConfig, rules: CountingRules, identities: Mapping[float, str], device: str, threads: int
    ) -> "CountingSetup":
        """That of a recipe; weights are put into the object store here."""
        import ray

        from rrcm_dist.models.classifier import read_classifier

        weights = {c.sigma: ray.put(read_classifier(c.checkpoint, c.sigma)) for c in config.classifiers if c.checkpoint}
        return cls(
            config.classifiers, weights, identities, rules, config.image_size, config.attention, device, threads,
            os.getcwd(),
        )  # fmt: skip

    def build(self, device: torch.device) -> CountingWorker:
        """The worker, with its first classifier loaded: one that cannot work says so before it is given any."""
        configs = {config.sigma: config for config in self.classifiers}
        sources = sources_of(self.classifiers)
        worker = CountingWorker(lambda sigma: self._classifier(configs[sigma], device), sources, self.rules, device)
        worker.load(next(iter(configs)))
        return worker

    def _classifier(self, config: ClassifierConfig, device: torch.device) -> nn.Module:
        reference = self.weights.get(config.sigma)
        if reference is not None:
            import ray

            from rrcm_dist.models.classifier import classifier_of

            return classifier_of(ray.get(reference), config.sigma, self.attention, device, self.rules.precision)
        classifier = build_classifier(config, self.attention, device, self.rules.precision)
        if identity_hash(classifier, source_of(config), self.image_size, device) != self.identities[config.sigma]:
            raise RRCMError(
                f"{source_of(config)} gives another network at sigma {config.sigma:g} here than where the run was "
                "started: it must be the same wherever and whenever it is called"
            )
        return classifier
