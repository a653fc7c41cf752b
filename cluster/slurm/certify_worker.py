"""What a worker job of a certification does: while it lives, it is a node of the Ray cluster that the head job keeps.

The head may go and come back elsewhere: its workers leave the old cluster and join the new one. A worker that is
preempted just ends; Slurm puts it back into the queue, and it joins again when it is started anew.
"""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.ray_nodes.addresses import host_and_port, own_address_towards
from cluster.ray_nodes.facts import HeadFacts, HeadState, versions_here
from cluster.ray_nodes.node import NodeSettings, RayNode
from cluster.slurm.batch_step import BatchStep
from cluster.slurm.tools import is_queued
from rrcm_dist.errors import RunFailure

POLL_SECONDS = 0.5
CONNECT_SECONDS = 5.0
AWAY_SECONDS = 600.0
"""A worker that has been without a head for so long makes way for others, and waits in the queue."""
ASK_SECONDS = 30.0
"""Between two questions to Slurm whether the head's job is still there."""
STARTS_ALLOWED = 5
"""Of nodes for one life of a head, each after the one before has died by itself."""


@dataclass
class CertifyWorker:
    """A worker job; submitit calls it in the batch step of every life of every task."""

    folder: str
    """That of the submission, where the head says where it is."""
    head_job: str
    cpus: int
    gpus: int
    environment: Mapping[str, str]
    """Further variables for what counts here."""

    def __call__(self) -> str:
        """Work until the head has ended, or until Slurm wants the node; returns why it ended, in words.

        Raises `RunFailure` where it cannot work, or where the head's job is gone without a word.
        """
        self._step = BatchStep()
        self._alone_since = self._asked_slurm = time.monotonic()
        self._starts: dict[str, int] = {}
        why = self._live()
        print(f"this worker ends: {why}", flush=True)
        if not self._step.terminated and why != Why.HEAD_ENDED:
            self._step.requeue(f"scontrol requeue {self._step.job}")
        return why

    def _live(self) -> str:
        while not self._step.terminated:
            facts = HeadFacts.read(Path(self.folder))
            if facts is not None and facts.state is HeadState.ENDED:
                return Why.HEAD_ENDED
            if self._step.asked:
                return Why.ASKED
            if facts is not None and facts.state is HeadState.RUNNING and _answers(facts.address):
                self._work(facts)
                self._alone_since = time.monotonic()
            elif time.monotonic() - self._alone_since > AWAY_SECONDS:
                return Why.ALONE
            else:
                self._check_head_job()
                time.sleep(POLL_SECONDS)
        return Why.TERMINATED

    def _work(self, facts: HeadFacts) -> None:
        """Be a node of this head's cluster until the head or this job is to end, or the node dies."""
        _check_versions(facts)
        self._starts[facts.address] = self._starts.get(facts.address, 0) + 1
        if self._starts[facts.address] > STARTS_ALLOWED:
            raise RunFailure(f"the Ray node of this worker died {STARTS_ALLOWED} times: see this log for the reasons")
        here = own_address_towards(*host_and_port(facts.address))
        print(f"joining the Ray cluster at {facts.address}, life {facts.life}, from {here}", flush=True)
        settings = NodeSettings(here, facts.token_file, self.cpus, self.gpus, facts.address)
        node = RayNode(settings, {**os.environ, **self.environment})
        try:
            while node.alive and not (self._step.asked or self._step.terminated):
                if HeadFacts.read(Path(self.folder)) not in (facts, None):
                    return
                time.sleep(POLL_SECONDS)
        finally:
            node.stop()

    def _check_head_job(self) -> None:
        """Raise `RunFailure` where the head's job is gone without a word, as when Slurm has given it up."""
        if time.monotonic() - self._asked_slurm < ASK_SECONDS:
            return
        self._asked_slurm = time.monotonic()
        try:
            gone = not is_queued(self.head_job)
        except RunFailure:  # the controller is silent: nothing is known
            return
        if gone:
            raise RunFailure(f"job {self.head_job}, the head of this worker, is gone")


class Why:
    """Why a worker's life ended."""

    HEAD_ENDED = "the head has ended"
    ASKED = "Slurm asks it to"
    ALONE = f"no head for {AWAY_SECONDS / 60:.0f} minutes"
    TERMINATED = "Slurm ends it"


def _answers(address: str) -> bool:
    with suppress(OSError):
        socket.create_connection(host_and_port(address), timeout=CONNECT_SECONDS).close()
        return True
    return False


def _check_versions(facts: HeadFacts) -> None:
    here = versions_here()
    if here != facts.versions:
        there, own = (", ".join(f"{name} {number}" for name, number in of.items()) for of in (facts.versions, here))
        raise RunFailure(f"the head runs {there} and this node {own}: Ray needs the same on both")
