"""What to do next: which units of which images, in which order, and again where a worker failed or went.

Pure bookkeeping: it knows neither Ray nor the ledger, nor what the work is. Images with the longest remaining work come
first, an image that was begun is finished before the next is opened, and towards the end batches shrink, so that no
worker idles at the tail; where an image's units are needed one after the other, idle workers then work ahead, and what
turns out not to be needed is dropped.
"""

from collections import deque
from collections.abc import Collection, Iterable

from rrcm_dist.certification.pool.tasks import Task
from rrcm_dist.certification.pool.work import Result, Track

BATCHES_LEFT = 2
"""A batch holds at most such a share of what is left that every worker could get this many more."""
MOST_AHEAD = 8
"""Units of one image that idle workers do beyond the one that is certainly needed."""
MOST_PUT_OFF = 1000
"""Units that wait for another worker than the only one there is, while that has something else to do."""


class WorkQueue:
    """The tracks that need work, and the tasks that are out or come back."""

    def __init__(self, tracks: Iterable[Track], audit_every: int = 0) -> None:
        """`tracks` in the order of equals; `audit_every` k > 0 has every k-th unit done by a second worker."""
        self._waiting = deque(sorted(tracks, key=lambda track: -track.remaining))
        self._ready: deque[Track] = deque()
        """Open tracks with a unit that is needed; `_listed` has them too."""
        self._listed: set[int] = set()
        self._open: dict[int, Track] = {}
        self._again: deque[Task] = deque()
        self._out = 0
        self._needed = sum(track.needed for track in self._waiting)
        self._ahead_tried = False
        self._audit_every, self._until_audit = audit_every, audit_every
        self.retried = self.audited = 0

    @property
    def queued(self) -> int:
        """Units known to be needed that no worker has."""
        return self._needed + len(self._again)

    @property
    def in_flight(self) -> int:
        """Units that a worker has."""
        return self._out

    @property
    def left(self) -> int:
        """The most cost that may still be needed, what is out counted in."""
        return sum(track.remaining for tracks in (self._waiting, self._open.values()) for track in tracks)

    @property
    def over(self) -> bool:
        """Whether nothing is left to do; what is out is not needed any more."""
        return not (self._waiting or self._open)

    def take(self, worker: str, workers: Collection[str], cost: int, most: int, least: int = 1) -> list[Task]:
        """The next batch for `worker`, one of `workers`: about `cost` of work, at most `most` units, [] if none.

        It has `least` units where there are as many, whatever they cost.
        """
        most = min(most, max(least, self.queued // (BATCHES_LEFT * max(len(workers), 1))))
        patient = len(self._again) < MOST_PUT_OFF
        batch = self._take_again(worker, () if patient else workers, cost, most)
        if not (batch and batch[0].alone):
            taken = sum(task.unit.cost for task in batch)
            while (taken < cost or len(batch) < least) and len(batch) < most:
                task = self._take_needed()
                if task is None:
                    break
                batch.append(task)
                taken += task.unit.cost
            batch = batch or self._take_again(worker, workers, cost, most) or self._take_ahead()
        self._out += len(batch)
        return batch

    def done(self, task: Task, worker: str, result: Result) -> str:
        """A task came back done. Returns what is wrong where an audit found another result before, else ''.

        The track then holds the result, but for one that goes to a second worker first.
        """
        self._out -= 1
        if task.track.over:
            return ""
        task.track.losses_alone = 0
        if task.first is not None:
            self.audited += 1
            problem = task.mismatch(result, worker)
            if problem:
                self.give_up(task.track)
                return problem
        elif self._is_audited():
            self._again.append(Task(task.track, task.unit, avoid={worker}, first=result, first_worker=worker))
            return ""
        task.track.accept(result)
        return ""

    def failed(self, task: Task, worker: str, message: str) -> str:
        """A worker could not do a task. Returns why its image is given up, or '' where another worker will try."""
        task.failed(worker, message)
        return self._retry(task)

    def lost(self, tasks: list[Task], begun: bool) -> list[tuple[Task, str]]:
        """A worker went with these tasks, one of which it was at if `begun`; else none can be what ended it.

        Returns those whose image is given up, with the reason.
        """
        given_up = []
        for task in tasks:
            if begun:
                task.lost(alone=len(tasks) == 1)
            reason = self._retry(task)
            if reason:
                given_up.append((task, reason))
        return given_up

    def looked(self, track: Track) -> str:
        """A unit of `track` was made to count: it may need another, or be over.

        Returns why its image is given up, where the other one is known to fail, or ''.
        """
        self._ahead_tried = False
        if track.over:
            self._close(track)
        elif track.doom:
            reason = track.doom
            self.give_up(track)
            return reason
        elif track.needed and id(track) not in self._listed:
            self._needed += track.needed
            self._ready.appendleft(track)
            self._listed.add(id(track))
        return ""

    def give_up(self, track: Track) -> None:
        """No further unit of `track` is wanted."""
        self._needed -= track.needed
        track.end()
        self._close(track)

    def withdraw(self, task: Task, reason: str) -> str:
        """A task that was taken cannot be handed out, for this reason, which is returned: its image is given up."""
        self._out -= 1
        if task.track.over:
            return ""
        self.give_up(task.track)
        return reason

    def open_images(self) -> set[int]:
        """The images that were begun at some level and are not over there."""
        return {track.image.image for track in self._open.values()}

    def _take_again(self, worker: str, workers: Collection[str], cost: int, most: int) -> list[Task]:
        """Tasks that came back. Those that `worker` should not have wait, unless none of `workers` should."""
        batch: list[Task] = []
        taken = 0
        for _ in range(len(self._again)):
            if taken >= cost or len(batch) >= most:
                break
            task = self._again.popleft()
            if not task.may_go_to(worker, workers) or (task.alone and batch):
                self._again.append(task)
                continue
            batch.append(task)
            taken += task.unit.cost
            if task.alone:
                break
        return batch

    def _take_needed(self) -> Task | None:
        while True:
            if not self._ready:
                if not self._waiting:
                    return None
                track = self._waiting.popleft()
                self._open[id(track)] = track
                self._ready.append(track)
                self._listed.add(id(track))
            track = self._ready[0]
            unit = track.next_unit()
            if not track.needed:
                self._listed.remove(id(self._ready.popleft()))
            if unit is not None:
                self._needed -= 1
                return Task(track, unit)

    def _take_ahead(self) -> list[Task]:
        """A unit that may be needed: of the open track with the fewest such out."""
        if self._ahead_tried or self._again:
            return []
        for ahead in range(1, MOST_AHEAD + 1):
            for track in self._open.values():
                unit = track.next_unit(ahead)
                if unit is not None:
                    return [Task(track, unit)]
        self._ahead_tried = True
        return []

    def _retry(self, task: Task) -> str:
        self._out -= 1
        if task.track.over:
            return ""
        reason = task.given_up
        if not reason:
            self.retried += 1
            self._again.append(task)
            return ""
        if not task.track.reject(task.unit, reason):
            return ""
        self.give_up(task.track)
        return reason

    def _is_audited(self) -> bool:
        if not self._audit_every:
            return False
        self._until_audit -= 1
        if self._until_audit:
            return False
        self._until_audit = self._audit_every
        return True

    def _close(self, track: Track) -> None:
        self._open.pop(id(track), None)
        if self._again:
            self._again = deque(task for task in self._again if task.track is not track)
