"""The driver: hands blocks to a crew, puts what comes back into the ledger, and decides what is still needed.

It is the ledger's one writer. What it knows besides is in the ledger too, so it may be killed at any time: started
again, it finds there what is missing.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from rrcm_dist.certification.blocks import BlockCounts, spread_counts
from rrcm_dist.certification.images import ImageSet
from rrcm_dist.certification.ledger.writer import Ledger
from rrcm_dist.certification.plan import PlannedBlocks
from rrcm_dist.certification.pool.crew import Crew, Return
from rrcm_dist.certification.pool.queue import WorkQueue
from rrcm_dist.certification.pool.tally import LevelTally, Tally
from rrcm_dist.certification.pool.tasks import Task
from rrcm_dist.certification.pool.tracks import Track
from rrcm_dist.certification.statistics.certificates import last_lower_bounds
from rrcm_dist.certification.statistics.confidence_sequence import lower_bound
from rrcm_dist.certification.statistics.stopping import AdaptiveRule
from rrcm_dist.certification.watching.snapshot import Watcher
from rrcm_dist.certification.workers.worker import Counted
from rrcm_dist.errors import RRCMError, RunFailure

BATCH_SECONDS = 0.5
"""A batch holds about so much work."""
BATCH_BLOCKS = 256
"""And at most so many blocks."""
WATCH_SECONDS = 1.0
"""Time between snapshots."""
FAILURES_BEFORE_END = 5
"""Images that a classifier may fail on, with not one block counted, before it is taken to fail on all."""


@dataclass(frozen=True)
class Level:
    """What is asked at one noise level."""

    sigma: float
    planned: PlannedBlocks
    """In mode adaptive the most blocks of an image."""
    alpha: float
    radii: tuple[float, ...]
    rule: AdaptiveRule | None
    """When an image stops; None in mode fixed."""


class Driver:
    """One run from what the ledger holds to what is asked."""

    def __init__(
        self,
        ledger: Ledger,
        images: ImageSet,
        levels: Sequence[Level],
        crew: Crew,
        watchers: Sequence[Watcher] = (),
        audit_every: int = 0,
    ) -> None:
        """The ledger knows the images and the classifier of each of `levels` already."""
        self._ledger, self._images, self._crew, self._watchers = ledger, images, crew, watchers
        self._levels = {level.sigma: level for level in levels}
        self._tally = Tally([_tally_of(level, len(images.images)) for level in levels])
        self._worked = dict.fromkeys(self._levels, False)
        """Whether any block was ever counted at a σ."""
        tracks = [track for level in levels for track in self._tracks(level)]
        self.queue = WorkQueue(tracks, audit_every)
        self._pixels: dict[int, NDArray[np.uint8]] = {}
        self._out: dict[int, list[Task]] = {}
        self._speeds: dict[str, float] = {}
        self._watched = 0.0

    def run(self) -> None:
        """Draw what is missing. Raises `RunFailure` where a classifier fails on every image."""
        self._ledger.forgive()
        self._watch(now=True)
        while not self.queue.over:
            self._hand_out()
            returns = self._crew.collect()
            self._take(returns)
            self._watch()
        self._ledger.commit()
        self._watch(now=True)

    def _tracks(self, level: Level) -> list[Track]:
        """The tracks of a level that are not over, with what the ledger holds of them."""
        tracks = {
            image.image: Track(image, level.sigma, level.planned, in_order=level.rule is not None)
            for image in self._images.images
        }
        for image, held in self._ledger.blocks(level.sigma):
            if image in tracks:
                tracks[image].resume(held)
                self._worked[level.sigma] = True
        if level.rule is not None:
            looked = [track for track in tracks.values() if track.looks]
            if looked:
                counts = [track.counts(self._images.classes) for track in looked]
                for track, bound in zip(looked, last_lower_bounds(counts, level.alpha), strict=True):
                    track.lower = float(bound)
                self._stop(looked)
        over = [track for track in tracks.values() if track.over]
        self._tally.levels[level.sigma].add([track.counts(self._images.classes) for track in over])
        return [track for track in tracks.values() if not track.over]

    def _hand_out(self) -> None:
        for worker in self._crew.free():
            draws = max(1, round(self._speeds.get(worker, 1.0) * BATCH_SECONDS))
            tasks = self.queue.take(worker, self._crew.workers(), draws, BATCH_BLOCKS)
            tasks = [task for task in tasks if self._read(task)]
            if tasks:
                blocks = [task.block for task in tasks]
                pixels = {block.image: self._pixels[block.image] for block in blocks}
                self._out[self._crew.submit(worker, blocks, pixels)] = tasks

    def _read(self, task: Task) -> bool:
        """Whether the pixels of a task's image are at hand; where they cannot be read, the image is given up."""
        image = task.block.image
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
            if returned.counted is None:
                for task, reason in self.queue.lost(tasks, returned.begun):
                    self._failed(task.track, reason)
                continue
            for task, counted in zip(tasks, returned.counted, strict=True):
                self._take_one(task, counted, returned)
                touched[id(task.track)] = task.track
            done = [(task, one) for task, one in zip(tasks, returned.counted, strict=True) if not one.problem]
            if done:
                draws = sum(task.block.draws for task, _ in done)
                self._speeds[returned.worker] = draws / (sum(one.seconds for _, one in done) + 1e-6)
                self._tally.counted(returned.worker, draws)
        self._settle(list(touched.values()))

    def _take_one(self, task: Task, counted: Counted, returned: Return) -> None:
        """Take one block of a batch: its counts, or what is wrong with them."""
        problem = counted.problem
        if not problem:
            try:
                counts = spread_counts(counted.packed, self._images.classes)
                if int(counts.sum()) != task.block.draws:
                    raise ValueError(f"{int(counts.sum())} draws")
            except (ValueError, IndexError) as error:
                problem = f"{returned.host} returned no counts of {task.block.draws} draws: {error}"
        if problem:
            self._failed(task.track, self.queue.failed(task, returned.worker, problem))
            return
        self._worked[task.block.sigma] = True
        result = BlockCounts(task.block, counts, returned.host, counted.seconds)
        self._failed(task.track, self.queue.counted(task, returned.worker, result))

    def _settle(self, tracks: list[Track]) -> None:
        """Make what has come count: into the ledger, and into the decision on what is still needed."""
        while tracks:
            looked = [(track, results) for track in tracks if (results := track.look())]
            self._ledger.add([result for _, results in looked for result in results])
            tracks = [track for track, _ in looked]
            self._bound([track for track in tracks if self._levels[track.sigma].rule is not None and track.looks])
            for track in tracks:
                if track.over:
                    self._tally.levels[track.sigma].add([track.counts(self._images.classes)])
                self._failed(track, self.queue.looked(track))
            tracks = [track for track in tracks if not track.over]

    def _bound(self, tracks: list[Track]) -> None:
        """Raise the lower bounds of `tracks` by their newest looks, and end those that have had enough."""
        for sigma in {track.sigma for track in tracks}:
            here = [track for track in tracks if track.sigma == sigma]
            successes, trials = np.array([track.looks[-1] for track in here]).T
            bounds = lower_bound(successes, trials, self._levels[sigma].alpha)
            for track, bound in zip(here, bounds, strict=True):
                track.lower = max(track.lower, float(bound))
            self._stop(here)

    def _stop(self, tracks: list[Track]) -> None:
        """End those of `tracks`, all of one σ and mode adaptive, that the rule lets go."""
        rule = self._levels[tracks[0].sigma].rule
        assert rule is not None, "mode adaptive has a rule"
        successes, trials = np.array([track.looks[-1] for track in tracks]).T
        finished = rule.finished(successes, trials, np.array([track.lower for track in tracks]))
        for track, ended in zip(tracks, finished, strict=True):
            if ended:
                track.end()

    def _failed(self, track: Track, reason: str) -> None:
        """Note that an image was given up, if there is a reason."""
        if not reason:
            return
        image, sigma = track.image, track.sigma
        self._ledger.fail(sigma, image.image, reason)
        tally = self._tally.levels[sigma]
        tally.failed += 1
        if not self._worked[sigma] and tally.failed >= min(FAILURES_BEFORE_END, len(self._images.images)):
            raise RunFailure(
                f"every image tried at sigma {sigma:g} failed; the last, {image.image} ({image.key}), {reason}"
            )

    def _watch(self, now: bool = False) -> None:
        if not now and time.monotonic() - self._watched < WATCH_SECONDS:
            return
        self._watched = time.monotonic()
        snapshot = self._tally.snapshot(self.queue, self._crew.workers())
        self._ledger.set_progress({"time": time.time(), **asdict(snapshot)})
        self._ledger.commit()
        for watcher in self._watchers:
            watcher.update(snapshot)


def _tally_of(level: Level, images: int) -> LevelTally:
    draws_each = sum(draws for _, _, draws in level.planned)
    return LevelTally(level.sigma, images, level.radii, level.alpha, draws_each)
