"""Which Ray to use and how to share it out: from a user's wishes to a crew."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rrcm_dist.certification.on_ray.actor import WorkerSetup
from rrcm_dist.certification.on_ray.cluster import ray_cluster
from rrcm_dist.certification.on_ray.crew import RayCrew, Share
from rrcm_dist.certification.watching.snapshot import Watcher
from rrcm_dist.errors import InvalidInput


@dataclass
class RayPool:
    """Workers on a Ray of one's own on this machine, or on a cluster that is there."""

    address: str | None = None
    """HOST:PORT or auto; None starts a Ray on this machine."""
    workers: int | None = None
    """The most workers; None: one a GPU, or where there is none one for each `cpus_per_worker` CPUs."""
    cpus_per_worker: int = 1
    """CPUs, and threads of torch, of a worker on CPU."""
    device: str = "auto"
    """auto takes GPUs where the cluster has any; cpu or cuda insists."""
    dashboard: bool = True
    """Start the dashboard with a Ray of one's own."""

    @contextmanager
    def started(self, show: bool = True) -> Iterator[str]:
        """Ray connected within the block; gives the kind of device that will count: cpu or cuda.

        A worker count beyond what the cluster has is no error: it is said, and more workers start as room comes.
        """
        wanted = None if self.workers is None or self.address else max(self.workers * self.cpus_per_worker, 1)
        with ray_cluster(self.address, wanted, self.dashboard) as facts:
            import ray

            resources = ray.cluster_resources()
            self.device = self._device_of(resources, facts.address)
            room = self._share().fit(resources)
            if show:
                print(facts.describe(), file=sys.stderr)
                print(self._describe(room), file=sys.stderr)
            yield self.device

    def crew(self, setup: WorkerSetup) -> RayCrew:
        """The workers; `setup` is for `device`, as it is within `started`, and `cpus_per_worker` threads."""
        return RayCrew(setup, self._share(), self.workers, embedded=self.address is None)

    def watchers(self, run: str, ledger: Path) -> list[Watcher]:
        """What puts the run called `run` among Ray's metrics and logs."""
        from rrcm_dist.certification.watching.ray_log import RayLog
        from rrcm_dist.certification.watching.ray_metrics import RayMetrics

        return [RayMetrics(run), RayLog(run, ledger)]

    def _device_of(self, resources: Mapping[str, float], address: str) -> str:
        gpus = int(resources.get("GPU", 0))
        if self.device == "cuda" and not gpus:
            raise InvalidInput(f"Ray at {address} has no GPU: leave --device at auto, or start Ray with --num-gpus")
        if self.device == "auto":
            return "cuda" if gpus else "cpu"
        return self.device

    def _share(self) -> Share:
        return Share(cpus=0, gpus=1) if self.device == "cuda" else Share(cpus=self.cpus_per_worker, gpus=0)

    def _describe(self, room: int) -> str:
        what = "GPU" if self.device == "cuda" else f"{self.cpus_per_worker} CPU"
        if self.workers is not None and room < self.workers:
            return (
                f"{self.workers} workers of one {what} each were asked for and there is room for {room}: going on with "
                "these; more start as soon as nodes join"
            )
        count = room if self.workers is None else self.workers
        cores = os.cpu_count() or 1
        if not self.address and self.device == "cpu" and count * self.cpus_per_worker > cores:
            return f"{count} workers of {what} each share the {cores} of this machine: fewer would be faster"
        return f"{count} workers of {what} each" if count else "no room for a worker yet: waiting for nodes to join"
