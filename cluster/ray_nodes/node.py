"""A node of Ray as the process that starts it sees it: started, ready, gone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

from cluster.ray_nodes.processes import die_with_parent_ignoring_usr2

STOP_SECONDS = 20.0
"""A node that is asked to end takes two seconds or three."""
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class NodeSettings:
    """What a node is told."""

    host_address: str
    """IP address of this host by which other nodes reach it."""
    token_file: str
    """File with the cluster's token, of this user alone."""
    cpus: int
    """That work may use; 0 for none."""
    gpus: int
    head: str | None = None
    """HOST:PORT of the head to join; None: this is the head, with a dashboard."""

    def to_json(self) -> str:
        """For a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From a command line."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class NodeAddresses:
    """Where a node that is up is reached."""

    head: str
    """HOST:PORT of the cluster."""
    dashboard: str
    """URL; empty for a node that is no head."""


class RayNode:
    """A node that lives from its making to `stop`, or until the thread that made it ends, by any means."""

    def __init__(self, settings: NodeSettings, environment: Mapping[str, str]) -> None:
        """Begin to start it, which takes seconds. What it says goes to this process's standard error."""
        command = [sys.executable, "-m", "cluster.ray_nodes.keeper", settings.to_json()]
        self._keeper = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True,
            preexec_fn=die_with_parent_ignoring_usr2,
        )  # fmt: skip
        assert self._keeper.stdout is not None
        os.set_blocking(self._keeper.stdout.fileno(), False)
        self._said = b""

    @property
    def addresses(self) -> NodeAddresses | None:
        """None while it is not up yet."""
        assert self._keeper.stdout is not None
        if not self._said.endswith(b"\n"):
            self._said += self._keeper.stdout.read() or b""
        return NodeAddresses(**json.loads(self._said)) if self._said.endswith(b"\n") else None

    @property
    def alive(self) -> bool:
        """Whether it is starting or up."""
        if self._keeper.returncode is not None:
            return False
        return os.waitid(os.P_PID, self._keeper.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None

    def stop(self) -> None:
        """End it, unless that has happened; returns when nothing of it is left."""
        if self._keeper.returncode is not None:
            return
        if self.alive:
            os.kill(self._keeper.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while self.alive and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        # Of a keeper that was itself killed; its number is no other's as long as nobody has asked how it ended, for
        # which reason nothing here does (as Popen's own methods do).
        os.killpg(self._keeper.pid, signal.SIGKILL)
        self._keeper.wait()
