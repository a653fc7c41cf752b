"""Verification workers on Ray: what an actor needs to be one; the network comes from the object store, or is made by
its function in every actor."""

import os
from dataclasses import dataclass
from typing import Any

import torch

from rrcm_dist.certification.verification.networks import NetworkToVerify
from rrcm_dist.certification.verification.worker import VerificationRules, VerificationWorker
from rrcm_dist.certification.workers.classifiers import call_function, weights_hash
from rrcm_dist.config.verify import VerifyConfig
from rrcm_dist.errors import RRCMError


@dataclass(frozen=True)
class VerificationSetup:
    """All that a verifying actor needs (`on_ray.actor.WorkerSetup`)."""

    network: Any
    """Reference to one of our networks in the object store; None where a function makes it."""
    function: str | None
    source: str
    channels: int
    weights: str
    rules: VerificationRules
    device: str
    threads: int
    folder: str
    command: str = "verify"

    @classmethod
    def of(
        cls, config: VerifyConfig, found: NetworkToVerify, rules: VerificationRules, device: str, threads: int
    ) -> "VerificationSetup":
        """That of a recipe; its network is put into the object store here."""
        import ray

        network = None if config.function else ray.put(found.network)
        return cls(
            network, config.function, config.source, found.channels, found.weights, rules, device, threads, os.getcwd()
        )

    def build(self, device: torch.device) -> VerificationWorker:
        """The worker. Raises `InvalidInput` naming a layer that no bounds are known for, and `RRCMError` where the
        function gives another network than where the run was started."""
        if self.function is None:
            import ray

            network = ray.get(self.network)
        else:
            network = call_function(self.function, 0.0)
        if weights_hash(network) != self.weights:
            raise RRCMError(
                f"{self.source} gives another network here than where the run was started: it must be the same "
                "wherever and whenever it is called"
            )
        return VerificationWorker(network, self.channels, self.source, self.rules, device)
