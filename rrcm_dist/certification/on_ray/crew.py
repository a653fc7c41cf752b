"""A crew of Ray actors: one a GPU, or a share of the CPUs. Actors come when resources do and may die at any time.

Ray places actors, starts their processes and tells when they die. A batch that a dead actor had is returned as lost,
and the driver gives it to another; Ray itself retries nothing, so no unit is done by a ghost.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rrcm_dist.certification.on_ray.actor import WorkerActor, WorkerSetup
from rrcm_dist.certification.on_ray.health import RayHealth
from rrcm_dist.certification.pool.crew import Return
from rrcm_dist.certification.pool.work import Pixels, Unit
from rrcm_dist.errors import RunFailure

BATCHES_AT_WORKER = 2
"""One that it is at and one that waits, so that it never waits for the driver."""
LOOK_SECONDS = 0.2
"""Longest wait for a batch before the driver looks at something else."""
GROW_SECONDS = 1.0
"""Time between looks for room for more workers."""
START_REFUSALS = 3
"""Workers in a row that may say why they cannot work, with none ready, before the run is taken to be hopeless."""
START_DEATHS = 20
"""Workers in a row that may die before they are ready, with none ready, before that: some may have been killed."""
IDLE_SECONDS = 5.0
"""Time without any worker until that is said."""
SLOWEST_GROW_SECONDS = 30.0
"""Longest time between looks for room, where worker after worker does not start."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Share:
    """What one worker takes of a cluster."""

    cpus: float
    gpus: float

    def fit(self, resources: Mapping[str, float]) -> int:
        """How many such shares `resources` hold."""
        rooms = [int(resources.get("CPU", 0.0) / self.cpus)] if self.cpus else []
        rooms += [int(resources.get("GPU", 0.0) / self.gpus)] if self.gpus else []
        return min(rooms, default=0)


@dataclass
class _Worker:
    handle: Any
    name: str = ""
    host: str = ""
    tickets: set[int] = field(default_factory=set)
    begun: int | None = None
    """Where it is gone: the ticket that it may have been at."""


class RayCrew:
    """Workers on a Ray that this process is connected to."""

    def __init__(
        self,
        setup: WorkerSetup | None,
        share: Share,
        most: int | None = None,
        embedded: bool = True,
        actor: type = WorkerActor,
    ) -> None:
        """At most `most` workers, each with a `share`; None: as many as there is room for, now and later.

        `embedded`: Ray was started by this process. `actor` is the class that workers are of, made from `setup`, with
        the methods of `WorkerActor`.
        """
        import ray

        self._ray, self._share, self._most, self._health = ray, share, most, RayHealth(embedded)
        self._setup = ray.put(setup)
        self._actor: Any = ray.remote(
            num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )(actor)
        self._starting: dict[Any, _Worker] = {}
        self._ready: dict[str, _Worker] = {}
        self._calls: dict[Any, tuple[int, _Worker]] = {}
        self._tickets = self._refusals = self._deaths = self._came = 0
        self._grown = 0.0
        self._idle_since: float | None = None
        """Since when there has been no worker, nor room to start one; infinite once that was said."""
        self._grow()

    def free(self) -> Sequence[str]:
        """Those with room for a batch; one with none at all comes first."""
        slots = [(len(w.tickets), name) for name, w in self._ready.items() if len(w.tickets) < BATCHES_AT_WORKER]
        return [name for _, name in sorted(slots)]

    def workers(self) -> Sequence[str]:
        """Those that have told that they are ready, and are not known to be dead."""
        return list(self._ready)

    def submit(self, worker: str, units: Sequence[Unit], pixels: Pixels) -> int:
        """Call the actor; Ray carries the images along."""
        self._tickets += 1
        chosen = self._ready[worker]
        self._calls[chosen.handle.work.remote(units, pixels)] = (self._tickets, chosen)
        chosen.tickets.add(self._tickets)
        return self._tickets

    def collect(self) -> list[Return]:
        """What came back within a moment; sees to new and lost workers, and to Ray itself, besides."""
        pause = min(GROW_SECONDS * (1 + self._refusals + self._deaths), SLOWEST_GROW_SECONDS)
        if self._health.check() and time.monotonic() - self._grown > pause:
            self._grow()
        waiting = [*self._calls, *self._starting]
        if not waiting:
            self._say_that_it_waits()
            time.sleep(LOOK_SECONDS)
            return []
        done, rest = self._ray.wait(waiting, num_returns=1, timeout=LOOK_SECONDS)
        if done and rest:
            done += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for reference in [reference for reference in done if reference in self._starting]:
            self._started(reference)
        return [self._returned(reference) for reference in done if reference in self._calls]

    def close(self) -> None:
        """End every worker at once; what they were at is not needed."""
        for worker in [*self._ready.values(), *self._starting.values()]:
            self._ray.kill(worker.handle)
        self._ready.clear()
        self._starting.clear()

    def _grow(self) -> None:
        """Start a worker for every share of the cluster that is free."""
        self._grown = time.monotonic()
        # What starts holds its share already, or will in a moment: both are asked, as the first answer may be old.
        room = self._share.fit(self._ray.cluster_resources())
        if self._most is not None:
            room = min(room, self._most)
        room -= len(self._ready) + len(self._starting)
        for _ in range(min(room, self._share.fit(self._ray.available_resources()))):
            self._came += 1
            handle: Any = self._actor.remote(self._setup)
            self._starting[handle.ready.remote()] = _Worker(handle, str(self._came))

    def _say_that_it_waits(self) -> None:
        if self._ready:
            return
        self._idle_since = self._idle_since or time.monotonic()
        if time.monotonic() - self._idle_since > IDLE_SECONDS:
            log.warning("no worker is left, and Ray has no room for one: waiting for nodes to join")
            self._idle_since = math.inf

    def _started(self, reference: Any) -> None:
        worker = self._starting.pop(reference)
        try:
            worker.host, problem = self._ray.get(reference)
            self._refusals += bool(problem)
        except self._ray.exceptions.RayError as error:  # it died, or its node went, before it was ready
            problem = _first_line(error)
            self._deaths += 1
        if problem:
            self._start_failed(worker, problem)
            return
        self._refusals = self._deaths = 0
        self._idle_since = None
        worker.name = f"{worker.host}/{worker.name}"
        self._ready[worker.name] = worker

    def _start_failed(self, worker: _Worker, problem: str) -> None:
        self._ray.kill(worker.handle)
        where = f" on {worker.host}" if worker.host else ""
        if not self._ready and (self._refusals >= START_REFUSALS or self._deaths >= START_DEATHS):
            raise RunFailure(f"no worker can start; the last one{where}: {problem}")
        log.warning("a worker did not start%s: %s", where, problem)

    def _returned(self, reference: Any) -> Return:
        ticket, worker = self._calls.pop(reference)
        try:
            answers = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._gone(worker, _first_line(error))
            answers = None
        worker.tickets.discard(ticket)
        return Return(ticket, worker.name, worker.host, answers, begun=ticket == worker.begun)

    def _gone(self, worker: _Worker, why: str) -> None:
        """A worker does its batches in the order of their tickets: the first one out is what it was at."""
        if self._ready.pop(worker.name, None) is not None:
            log.warning("worker %s is gone: %s", worker.name, why)
            worker.begun = min(worker.tickets)
            self._ray.kill(worker.handle)


def _first_line(error: BaseException) -> str:
    """Of Ray's page, or of the error itself where the worker raised one."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0]}"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
