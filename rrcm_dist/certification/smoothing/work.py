"""Counting noise draws for certificates, as work for the pool (`pool.work.Work`)."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from rrcm_dist.certification.blocks import Block, BlockCounts, spread_counts
from rrcm_dist.certification.images import ImageSet
from rrcm_dist.certification.ledger.writer import Ledger
from rrcm_dist.certification.plan import PlannedBlocks
from rrcm_dist.certification.pool.work import Batching, Pulse
from rrcm_dist.certification.smoothing.tally import LevelTally
from rrcm_dist.certification.smoothing.tracks import Track
from rrcm_dist.certification.statistics.certificates import last_lower_bounds
from rrcm_dist.certification.statistics.confidence_sequence import lower_bound
from rrcm_dist.certification.statistics.stopping import AdaptiveRule
from rrcm_dist.certification.watching.snapshot import Snapshot
from rrcm_dist.certification.workers.worker import Counted

BATCH_SECONDS = 0.5
"""A batch holds about so much work."""
BATCH_BLOCKS = 256
"""And at most so many blocks."""


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


class Counting:
    """The draws that `levels` need of `images`, counted into `ledger`."""

    batching = Batching(BATCH_SECONDS, BATCH_BLOCKS)

    def __init__(self, ledger: Ledger, images: ImageSet, levels: Sequence[Level]) -> None:
        """The ledger knows the images and the classifier of each of `levels` already."""
        self.ledger, self._images = ledger, images
        self._levels = {level.sigma: level for level in levels}
        self._tallies = {level.sigma: _tally_of(level, len(images.images)) for level in levels}
        self.worked: set[Hashable] = set()

    def tracks(self) -> list[Track]:
        """Of every level those that are not over."""
        return [track for level in self._levels.values() for track in self._tracks(level)]

    def result(self, unit: Block, answer: Counted, host: str) -> BlockCounts:
        """The counts, checked against the block's draws."""
        try:
            counts = spread_counts(answer.packed, self._images.classes)
            if int(counts.sum()) != unit.draws:
                raise ValueError(f"{int(counts.sum())} draws")
        except (ValueError, IndexError) as error:
            raise ValueError(f"no counts of {unit.draws} draws: {error}") from error
        self.worked.add(unit.sigma)
        return BlockCounts(unit, counts, host, answer.seconds)

    def settle(self, tracks: Sequence[Track]) -> list[Track]:
        """Blocks that have come go into the ledger; in mode adaptive, images that have had enough are ended."""
        looked = [(track, results) for track in tracks if (results := track.look())]
        self.ledger.add([result for _, results in looked for result in results])
        touched = [track for track, _ in looked]
        self._bound([track for track in touched if self._levels[track.level].rule is not None and track.looks])
        for track in touched:
            if track.over:
                self._tallies[track.level].add([track.counts(self._images.classes)])
        return touched

    def given_up(self, track: Track, reason: str) -> None:
        """Its level counts it as failed."""
        self._tallies[track.level].failed += 1

    def snapshot(self, pulse: Pulse) -> Snapshot:
        """The pulse in draws and blocks, and every noise level."""
        return Snapshot(
            seconds=pulse.seconds, draws=pulse.done, draws_left=pulse.left, draws_per_second=pulse.per_second,
            worker_draws_per_second=pulse.worker_per_second, blocks_queued=pulse.queued,
            blocks_in_flight=pulse.in_flight, blocks_retried=pulse.retried, blocks_audited=pulse.audited,
            levels=tuple(tally.state() for tally in self._tallies.values()),
        )  # fmt: skip

    def _tracks(self, level: Level) -> list[Track]:
        tracks = {
            image.image: Track(image, level.sigma, level.planned, in_order=level.rule is not None)
            for image in self._images.images
        }
        for image, held in self.ledger.blocks(level.sigma):
            if image in tracks:
                tracks[image].resume(held)
                self.worked.add(level.sigma)
        if level.rule is not None:
            looked = [track for track in tracks.values() if track.looks]
            if looked:
                counts = [track.counts(self._images.classes) for track in looked]
                for track, bound in zip(looked, last_lower_bounds(counts, level.alpha), strict=True):
                    track.lower = float(bound)
                self._stop(looked)
        over = [track for track in tracks.values() if track.over]
        self._tallies[level.sigma].add([track.counts(self._images.classes) for track in over])
        return [track for track in tracks.values() if not track.over]

    def _bound(self, tracks: list[Track]) -> None:
        """Raise the lower bounds of `tracks` by their newest looks, and end those that have had enough."""
        for sigma in {track.level for track in tracks}:
            here = [track for track in tracks if track.level == sigma]
            successes, trials = np.array([track.looks[-1] for track in here]).T
            bounds = lower_bound(successes, trials, self._levels[sigma].alpha)
            for track, bound in zip(here, bounds, strict=True):
                track.lower = max(track.lower, float(bound))
            self._stop(here)

    def _stop(self, tracks: list[Track]) -> None:
        """End those of `tracks`, all of one σ and mode adaptive, that the rule lets go."""
        rule = self._levels[tracks[0].level].rule
        assert rule is not None, "mode adaptive has a rule"
        successes, trials = np.array([track.looks[-1] for track in tracks]).T
        finished = rule.finished(successes, trials, np.array([track.lower for track in tracks]))
        for track, ended in zip(tracks, finished, strict=True):
            if ended:
                track.end()


def _tally_of(level: Level, images: int) -> LevelTally:
    draws_each = sum(draws for _, _, draws in level.planned)
    return LevelTally(level.sigma, images, level.radii, level.alpha, draws_each)
