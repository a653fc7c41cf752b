"""The driver: hands units of work to a crew, and what comes back to the work that they are of, until nothing is needed.

It is the ledger's one writer. What it knows besides is in the ledger too, so it may be killed at any time: started
again, it finds there what is missing.
"""

import time
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from rrcm_dist.certification.images import ImageSet
from rrcm_dist.certification.pool.crew import Crew, Return
from rrcm_dist.certification.pool.pace import Pace
from rrcm_dist.certification.pool.queue import WorkQueue
from rrcm_dist.certification.pool.tasks import Task
from rrcm_dist.certification.pool.work import Answer, Track, Work
from rrcm_dist.certification.watching.snapshot import Watcher
from rrcm_dist.errors import RRCMError, RunFailure

WATCH_SECONDS = 1.0
"""Time between snapshots."""
FAILURES_BEFORE_END = 5
"""Images that a classifier may fail on, with not one result, before it is taken to fail on all."""


class Driver:
    """One run from what the ledger holds to what is asked."""

    def __init__(
        self, work: Work, images: ImageSet, crew: Crew, watchers: Sequence[Watcher] = (), audit_every: int = 0
    ) -> None:
        self._work, self._images, self._crew, self._watchers = work, images, crew, watchers
        self._failures: Counter[Hashable] = Counter()
        self._pace = Pace()
        self.queue = WorkQueue(work.tracks(), audit_every)
        self._pixels: dict[int, NDArray[np.uint8]] = {}
        self._out: dict[int, list[Task]] = {}
        self._speeds: dict[str, float] = {}
        self._watched = 0.0

    def run(self) -> None:
        """Do what is missing. Raises `RunFailure` where a classifier fails on every image."""
        self._work.ledger.forgive()
        self._watch(now=True)
        while not self.queue.over:
            self._hand_out()
            self._take(self._crew.collect())
            self._watch()
        self._work.ledger.commit()
        self._watch(now=True)

    def _hand_out(self) -> None:
        batching = self._work.batching
        for worker in self._crew.free():
            cost = max(1, round(self._speeds.get(worker, 1.0) * batching.seconds))
            tasks = self.queue.take(worker, self._crew.workers(), cost, batching.most, batching.least)
            tasks = [task for task in tasks if self._read(task)]
            if tasks:
                units = [task.unit for task in tasks]
                pixels = {unit.image: self._pixels[unit.image] for unit in units}
                self._out[self._crew.submit(worker, units, pixels)] = tasks

    def _read(self, task: Task) -> bool:
        """Whether the pixels of a task's image are at hand; where they cannot be read, the image is given up."""
        image = task.unit.image
        if image not in self._pixels:
            if len(self._pixels) > 64 + 2 * len(self.queue.open_images()):
                self._pixels = {i: self._pixels[i] for i in self.queue.open_images() if i in self._pixels}
            try:
                ((_, pixels),) = self._images.read([image])
            except RRCMError as error:
                self._failed(task.track, self.queue.withdraw(task, str(error)))
                return False
            self._pixels[image] = pixels.numpy()
        return True

    def _take(self, returns: Iterable[Return]) -> None:
        touched: dict[int, Track] = {}
        for returned in returns:
            tasks = self._out.pop(returned.ticket)
            if returned.answers is None:
                for task, reason in self.queue.lost(tasks, returned.begun):
                    self._failed(task.track, reason)
                continue
            for task, answer in zip(tasks, returned.answers, strict=True):
                self._take_one(task, answer, returned)
                touched[id(task.track)] = task.track
            done = [(task, one) for task, one in zip(tasks, returned.answers, strict=True) if not one.problem]
            if done:
                cost = sum(task.unit.cost for task, _ in done)
                self._speeds[returned.worker] = cost / (sum(one.seconds for _, one in done) + 1e-6)
                self._pace.returned(returned.worker, cost)
        self._settle(list(touched.values()))

    def _take_one(self, task: Task, answer: Answer, returned: Return) -> None:
        """Take one unit of a batch: its result, or what is wrong with it."""
        problem = answer.problem
        if not problem:
            try:
                result = self._work.result(task.unit, answer, returned.host)
            except ValueError as error:
                problem = f"{returned.host} returned {error}"
        if problem:
            self._failed(task.track, self.queue.failed(task, returned.worker, problem))
            return
        self._failed(task.track, self.queue.done(task, returned.worker, result))

    def _settle(self, tracks: Sequence[Track]) -> None:
        """Make what has come count, and what that makes count in turn."""
        while tracks:
            tracks = self._work.settle(tracks)
            for track in tracks:
                self._failed(track, self.queue.looked(track))
            tracks = [track for track in tracks if not track.over]

    def _failed(self, track: Track, reason: str) -> None:
        """Note that an image was given up, if there is a reason."""
        if not reason:
            return
        image = track.image
        self._work.ledger.fail(track.level, image.image, reason)
        self._work.given_up(track, reason)
        self._failures[track.level] += 1
        hopeless = self._failures[track.level] >= min(FAILURES_BEFORE_END, len(self._images.images))
        if hopeless and track.level not in self._work.worked:
            raise RunFailure(
                f"every image tried at {track.place} failed; the last, {image.image} ({image.key}), {reason}"
            )

    def _watch(self, now: bool = False) -> None:
        if not now and time.monotonic() - self._watched < WATCH_SECONDS:
            return
        self._watched = time.monotonic()
        snapshot = self._work.snapshot(self._pace.pulse(self.queue, self._crew.workers()))
        self._work.ledger.set_progress({"time": time.time(), **asdict(snapshot)})
        self._work.ledger.commit()
        for watcher in self._watchers:
            watcher.update(snapshot)
