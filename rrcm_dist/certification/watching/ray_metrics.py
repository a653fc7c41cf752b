"""A running certification as Ray metrics: Ray's metrics ports serve them to Prometheus, with `ray_` before their names.

    rrcm_certify_draws_total                 counter   draws since the run was started
    rrcm_certify_draws_left                  gauge     the most that may still be needed
    rrcm_certify_draws_per_second            gauge     over the last ten seconds or so
    rrcm_certify_worker_draws_per_second     gauge     by worker; 0 for one that went
    rrcm_certify_blocks_queued, _in_flight   gauges    blocks that wait for a worker, that a worker has
    rrcm_certify_blocks_retried_total        counter   blocks given to another worker
    rrcm_certify_blocks_audited_total        counter   blocks counted twice, to compare
    rrcm_certify_images                      gauge     by sigma: images asked for
    rrcm_certify_images_decided, _failed     gauges    by sigma: images that need no further draw, given up
    rrcm_certify_draws_saved                 gauge     by sigma: draws that mode fixed would have cost besides
    rrcm_certify_certified_accuracy          gauge     by sigma and radius: 0 to 1, of images decided or failed

Every one bears `run`, the name of the run: a cluster may carry several. Ray passes values on every 10 s and forgets a
gauge that is not set again for 20 s, so charts end with the run.
"""

import logging
from collections.abc import Mapping

from rrcm_dist.certification.statistics.bounds import shortest
from rrcm_dist.certification.watching.snapshot import LevelState, Snapshot

PREFIX = "rrcm_certify_"
GAUGES: Mapping[str, tuple[str, ...]] = {
    "draws_left": (),
    "draws_per_second": (),
    "worker_draws_per_second": ("worker",),
    "blocks_queued": (),
    "blocks_in_flight": (),
    "images": ("sigma",),
    "images_decided": ("sigma",),
    "images_failed": ("sigma",),
    "draws_saved": ("sigma",),
    "certified_accuracy": ("sigma", "radius"),
}
"""Name without the prefix → tags besides `run`."""
COUNTERS = ("draws", "blocks_retried", "blocks_audited")

_log = logging.getLogger(__name__)


class RayMetrics:
    """A `Watcher` that sets Ray metrics; to be made in a process that is connected to Ray, once a run.

    When a metric cannot be set, it says so once in the log and leaves the run alone from then on.
    """

    def __init__(self, run: str) -> None:
        from ray.util.metrics import Counter, Gauge

        tags = {"run": run}
        self._gauges = {
            name: Gauge(PREFIX + name, tag_keys=("run", *keys)).set_default_tags(tags) for name, keys in GAUGES.items()
        }
        self._counters = {name: Counter(PREFIX + name, tag_keys=("run",)).set_default_tags(tags) for name in COUNTERS}
        self._counted = dict.fromkeys(COUNTERS, 0)
        self._workers: set[str] = set()
        self._broken = False

    def update(self, snapshot: Snapshot) -> None:
        """Sets every metric to what the snapshot says."""
        self._guarded(snapshot)

    def close(self) -> None:
        """Rates and queues go to 0, so that a chart does not go on with the last ones; results stay."""
        self._guarded(None)

    def _guarded(self, snapshot: Snapshot | None) -> None:
        if self._broken:
            return
        try:
            self._set_rates(snapshot)
            if snapshot is not None:
                self._count(snapshot)
                for level in snapshot.levels:
                    self._set_level(level)
        except Exception as e:  # a watcher never stops the run
            self._broken = True
            _log.warning("Ray metrics are no longer updated: %s: %s", type(e).__name__, e)

    def _set_rates(self, snapshot: Snapshot | None) -> None:
        workers = snapshot.worker_draws_per_second if snapshot else {}
        for name in ("draws_left", "draws_per_second", "blocks_queued", "blocks_in_flight"):
            self._set(name, getattr(snapshot, name) if snapshot else 0)
        self._workers |= workers.keys()
        for worker in self._workers:
            self._set("worker_draws_per_second", workers.get(worker, 0), worker=worker)

    def _count(self, snapshot: Snapshot) -> None:
        for name in COUNTERS:
            more = getattr(snapshot, name) - self._counted[name]
            if more > 0:
                self._counters[name].inc(more)
                self._counted[name] += more

    def _set_level(self, level: LevelState) -> None:
        sigma = f"{level.sigma:g}"
        for name in ("images", "images_decided", "images_failed", "draws_saved"):
            self._set(name, getattr(level, name.removeprefix("images_")), sigma=sigma)
        done = level.decided + level.failed
        for number, certified in zip(level.radii, level.certified, strict=True) if done else ():
            radius = shortest(number)
            self._set("certified_accuracy", certified / done, sigma=sigma, radius=radius)

    def _set(self, name: str, value: float, **tags: str) -> None:
        self._gauges[name].set(value, tags=tags)
