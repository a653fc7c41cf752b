"""A Ray actor that holds the share of one rank on a node, and runs the rank there as a process.

The rank dies with its actor, by whatever means; so it ends with the job, too, and with the node's raylet.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cluster.rank_processes import RankFailure, RankProcess

POLL_SECONDS = 0.1
PACKAGES = ("rrcm-dist", "torch", "deepspeed", "numpy", "ray")
"""Those whose versions must be the same everywhere."""


@dataclass(frozen=True)
class HostFacts:
    """Where an actor is, and what it finds there."""

    node: str
    """Ray's id of the node."""
    host: str
    address: str
    """At which the other nodes reach this one."""
    free_port: int
    versions: Mapping[str, str]
    missing: tuple[str, ...]
    """Of the files and folders that a rank needs, those that are not there."""


class RankHost:
    """One rank's place."""

    def __init__(self) -> None:
        self._process: RankProcess | None = None
        self._ended = False
        self._lock = threading.Lock()

    def facts(self, needed: Sequence[str]) -> HostFacts:
        """What must be known before the ranks start; `needed` are paths."""
        import ray

        context = ray.get_runtime_context()
        missing = tuple(path for path in needed if not Path(path).exists())
        node, address = context.get_node_id(), ray.util.get_node_ip_address()
        return HostFacts(node, socket.gethostname(), address, _free_port(), versions_here(), missing)

    def run(
        self, rank: int, command: Sequence[str], additions: Mapping[str, str], folder: str, log: str
    ) -> RankFailure | None:
        """Run the rank in `folder` to its end; what it ended with if that was bad.

        additions: to the environment of this actor, in which Ray has set CUDA_VISIBLE_DEVICES.
        """
        os.chdir(folder)
        process = RankProcess(rank, command, {**os.environ, **additions}, Path(log), signal.SIGKILL)
        with self._lock:
            if self._ended:
                return None
            process.start()  # in the thread that waits: the kernel ends the rank when that thread is gone
            self._process = process
        while process.code is None:
            time.sleep(POLL_SECONDS)
        process.kill()  # what it started
        return RankFailure(rank, process.code, process.log, process.last_lines) if process.code else None

    def end(self, seconds: float) -> None:
        """Ask the rank to end; kill it after so long."""
        with self._lock:
            self._ended = True
            process = self._process
        if process is None:
            return
        process.send(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while process.code is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        process.kill()


def versions_here() -> dict[str, str]:
    """Of Python and of each package, without importing it."""
    return {"Python": ".".join(map(str, sys.version_info[:3])), **{name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
