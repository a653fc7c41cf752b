"""What runs within a Ray actor: a worker of whatever kind, made there from a setup."""

import os
import socket
import sys
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from rrcm_dist.certification.pool.work import Answer, Pixels, Unit, Worker
from rrcm_dist.certification.workers.guarding import DeviceLost
from rrcm_dist.errors import RRCMError


class WorkerSetup(Protocol):
    """All that an actor needs, once, before the first batch."""

    @property
    def command(self) -> str:
        """Whose worker it is: certify, verify."""

    @property
    def device(self) -> str:
        """cpu or cuda; Ray shows an actor its own GPU alone."""

    @property
    def threads(self) -> int:
        """CPU threads of torch."""

    @property
    def folder(self) -> str:
        """Where the driver was started: modules there can be imported, as in the driver."""

    def build(self, device: torch.device) -> Worker:
        """The worker, ready to work; raises what keeps it from that."""


class WorkerActor:
    """One worker of a Ray crew."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self._problem = ""
        self._worker: Worker | None = None
        try:
            self._worker = self._build()
        except RRCMError as error:
            self._problem = str(error)
        except Exception as error:  # whatever it is, it is told in `ready`: Ray would wrap it in a page
            self._problem = f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"

    def ready(self) -> tuple[str, str]:
        """(host, why it cannot work or '')."""
        return socket.gethostname(), self._problem

    def work(self, units: Sequence[Unit], pixels: Pixels) -> Sequence[Answer]:
        """As `pool.work.Worker.work`."""
        assert self._worker is not None, "only a worker that is ready is asked"
        try:
            return self._worker.work(units, pixels)
        except DeviceLost:
            os._exit(1)  # a new process has a working GPU; the driver finds out which unit spoils it

    def __repr__(self) -> str:
        """How Ray's dashboard and logs call it."""
        return f"rrcm {self._setup.command} on {socket.gethostname()} ({self._setup.device})"

    def _build(self) -> Any:
        setup = self._setup
        if setup.folder not in sys.path:
            sys.path.insert(0, setup.folder)
        torch.set_num_threads(setup.threads)
        if setup.device == "cuda" and not torch.cuda.is_available():
            raise RRCMError("torch sees no GPU here, though Ray gave one")
        return setup.build(torch.device(setup.device))
