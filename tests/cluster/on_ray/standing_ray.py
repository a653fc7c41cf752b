"""A real Ray cluster of two nodes on this machine, apart from any other: own ports, temp folder and token."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import psutil
import pytest

from rrcm_dist.certification.on_ray.cluster import _reread_authentication

QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
}
SITE = """
backend: ray
address: {address}
ranks: {ranks}
cpus_per_rank: 1
gpus_per_rank: 0
device: cpu
"""
SECONDS = 240


class StandingRay:
    """A head node and one more, each with a CPU; jobs are submitted to its dashboard."""

    def __init__(self) -> None:
        from ray._private.utils import write_ray_address
        from ray.cluster_utils import Cluster

        self.token = secrets.token_hex(32)
        self._patch = pytest.MonkeyPatch()
        self._patch.setenv("RAY_AUTH_MODE", "token")
        self._patch.setenv("RAY_AUTH_TOKEN", self.token)
        self._patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        for name in ("AUTOSCALER_METRIC_PORT", "DASHBOARD_METRIC_PORT"):  # fixed otherwise
            self._patch.setenv(name, str(free_port()))
        _reread_authentication()
        self._folder = tempfile.mkdtemp(prefix="rrcm-", dir="/tmp")  # sockets lie in it, whose paths must be short
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        self._patch.setenv("RAY_API_SERVER_ADDRESS", self.address)  # where a job is looked for by its id
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 1, "include_dashboard": True, "dashboard_port": port, "temp_dir": self._folder,
                "dashboard_agent_listen_port": free_port(), "_system_config": QUICK_TO_NOTICE,
            },
        )  # fmt: skip
        # As `ray start` does: by this Ray finds the cluster of its jobs, where others are on this host.
        write_ray_address(self._cluster.address, self._folder)
        self._second = None
        self.tidy()

    def tidy(self) -> None:
        """Have both nodes again."""
        if self._second is None:
            self._second = self._cluster.add_node(num_cpus=1, dashboard_agent_listen_port=free_port())

    def kill_second_node(self) -> None:
        """Its raylet and all that belongs to it, without a word."""
        self._cluster.remove_node(self._second, allow_graceful=False)
        self._second = None

    def close(self) -> None:
        """End all of it."""
        self._cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._patch.undo()
        _reread_authentication()

    def try_to(self, folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`python -m cluster COMMAND` in a folder, which may fail."""
        return subprocess.run(
            [sys.executable, "-m", "cluster", *map(str, command)],
            capture_output=True, text=True, timeout=SECONDS, cwd=folder, env=os.environ | environment,
        )  # fmt: skip

    def call(self, folder: Path, *command: str) -> str:
        """What such a command says."""
        done = self.try_to(folder, *command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def write_site(self, folder: Path, ranks: int = 2) -> None:
        """`folder`/site.yaml."""
        (folder / "site.yaml").write_text(SITE.format(address=self.address, ranks=ranks))

    def job_state(self, job: str) -> str:
        """In Ray's word."""
        from cluster.on_ray.jobs_api import RayCluster

        info = RayCluster(self.address).job(job)
        return info.state if info else ""


def standing_ray() -> Iterator[StandingRay]:
    ray = StandingRay()
    try:
        yield ray
    finally:
        ray.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(condition: Callable[[], object], what: Callable[[], str], seconds: float = SECONDS) -> None:
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, what()
        sleep(0.1)


def processes_with(*words: str) -> list[psutil.Process]:
    """Those in whose command line all of these stand."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if all(any(word in part for part in line) for word in words) and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found
