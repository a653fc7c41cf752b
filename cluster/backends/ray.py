"""A Ray cluster that is there already: each job is a Ray job, driven from the cluster's head node."""

import os
import re
import secrets
import shlex
import sys
from pathlib import Path

import yaml

from cluster.backends.submission import submission_of
from cluster.jobs import Job
from cluster.jobs.certification import CertifyJob
from cluster.jobs.training import TrainingJob
from cluster.on_ray.jobs_api import RayCluster
from cluster.record.history import History
from cluster.site import RaySite
from rrcm_dist.errors import InvalidInput
from rrcm_dist.files import write_text

STOP_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
DRIVER_SECONDS = 15
"""For the driver to write down how the ranks ended, before Ray kills it."""


class RayBackend:
    """Submits jobs; does not wait for them."""

    def __init__(self, site: RaySite) -> None:
        self._site = site

    def submit(self, job: Job) -> int:
        """Submit the job; returns 0. Raises `InvalidInput` for what cannot be, `RunFailure` without a cluster."""
        self._check(job)
        cluster = RayCluster(self._site.address)
        self._check_room(job, cluster.nodes())
        job.check_inputs(waits=False)
        with submission_of(job) as submission:
            folder, name = submission.folder, _submission_id(job)
            write_text(folder / "site.yaml", yaml.safe_dump(self._site.model_dump(mode="json"), sort_keys=False))
            environment = {**self._site.environment, STOP_VARIABLE: str(self._site.cancel_seconds + DRIVER_SECONDS)}
            cluster.submit(name, self._entrypoint(job, folder, name), environment, submission.run)
            submission.record(name, self._site)
        print(f"job {name} is submitted: `python -m cluster status {job.folder}`")
        return 0

    def describe(self, job: Job) -> str:
        """The entrypoint, and what the job takes of the cluster; needs no cluster."""
        self._check(job)
        run, site = job.folder.absolute(), self._site
        share = f"{site.cpus_per_rank} CPUs" + (f" and {site.gpus_per_rank} GPU" if site.gpus_per_rank else "")
        if isinstance(job, TrainingJob):
            uses = f"{site.ranks} ranks, each with {share}; their output: {run}/logs/life-K/rank-R.log"
        else:
            uses = f"a worker on every GPU of the cluster or, where it has none, on every {site.cpus_per_rank} CPUs"
        entrypoint = self._entrypoint(job, History(run).next_submission(), "JOB")
        return f"a Ray job at {site.address}:\n  {entrypoint}\nwhich uses {uses}"

    def _check(self, job: Job) -> None:
        if isinstance(job, TrainingJob):
            job.check_ranks(self._site.ranks)
            job.check_start()
        elif not isinstance(job, CertifyJob):
            raise InvalidInput(f"{job.kind} cannot run on a Ray cluster: choose another backend")

    def _check_room(self, job: Job, nodes: list[dict[str, float]]) -> None:
        """Raise `InvalidInput` where the whole cluster, idle, has no room for the job."""
        site = self._site
        wanted = {"CPU": site.cpus_per_rank, "GPU": site.gpus_per_rank}
        room = sum(int(min(node.get(name, 0.0) // each for name, each in wanted.items() if each)) for node in nodes)
        needed = site.ranks if isinstance(job, TrainingJob) else 1
        if room < needed:
            cpus, gpus = (sum(node.get(name, 0.0) for node in nodes) for name in wanted)
            raise InvalidInput(
                f"{needed} × ({site.cpus_per_rank} CPUs, {site.gpus_per_rank} GPUs) is more than the Ray cluster at "
                f"{site.address} has: {cpus:g} CPUs and {gpus:g} GPUs on {len(nodes)} nodes, room for {room}"
            )

    def _entrypoint(self, job: Job, folder: Path, name: str) -> str:
        """`exec`: the driver itself, and no shell, gets the signals of `ray job stop`."""
        device, recipe = self._site.device, folder / "recipe.yaml"
        if isinstance(job, TrainingJob):
            drive = [sys.executable, "-m", "cluster.on_ray.drive", str(job.folder.absolute()), name]
            command = [*drive, str(folder / "site.yaml"), *job.arguments(device, recipe)]
        else:
            shares = ["--cpus-per-worker", str(self._site.cpus_per_rank)]
            command = [*job.command(device, recipe), "--address", "auto", *shares]
        return f"cd {shlex.quote(os.getcwd())} && exec {shlex.join(command)}"


def _submission_id(job: Job) -> str:
    """Never given before; readable in Ray's dashboard."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", f"rrcm-{job.kind}-{job.name}-{secrets.token_hex(4)}")
