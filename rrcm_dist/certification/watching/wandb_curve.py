"""A running certification in Weights & Biases; of smoothing, certified accuracy so far at every σ and radius."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rrcm_dist.certification.statistics.bounds import shortest
from rrcm_dist.certification.watching.snapshot import LevelState, Snapshot
from rrcm_dist.config.schema import CertifyConfig
from rrcm_dist.config.verify import VerifyConfig
from rrcm_dist.tracking import start_run

SECONDS_BETWEEN_POINTS = 10.0
"""A certification takes hours; its last point is always told."""


class WandbWatcher:
    """A watcher (`snapshot.Watcher`) that tells Weights & Biases; one run there for one output folder.

    Abscissa is `images_decided`, over all levels, so that the curves of a resumed run go on.
    """

    def __init__(
        self,
        recipe: CertifyConfig | VerifyConfig,
        folder: Path,
        point: Callable[[Any], dict[str, float]],
        chart: Callable[[Any], tuple[str, Any] | None],
    ) -> None:
        """`recipe.tracking.wandb` is offline or online; `folder` is the run's output folder.

        `point` says what is told of a snapshot, `chart` what is shown of the last one (name, chart). Raises, before
        anything is done, `InvalidInput` where the package is missing, and `RunFailure` where the service refuses or is
        out of reach. Afterwards nothing here raises.
        """
        tracking = recipe.tracking
        assert tracking.wandb != "off"
        self._run: Any = start_run(
            folder,
            recipe.name,
            recipe.model_dump(mode="json"),
            mode=tracking.wandb,
            project=tracking.project,
            entity=tracking.entity,
            step_metric="images_decided",
        )
        self._point, self._chart = point, chart
        self._latest: Any = None
        self._told: Any = None

    def update(self, snapshot: Any) -> None:
        """Tell where the run stands, unless that was told a moment ago."""
        self._latest = snapshot
        if self._told is None or snapshot.seconds - self._told.seconds >= SECONDS_BETWEEN_POINTS:
            self._guarded(lambda: self._tell(snapshot))

    def close(self) -> None:
        """Tell the last state and its chart, and finish what is to be sent."""
        self._guarded(self._finish)

    def _tell(self, snapshot: Any) -> None:
        self._told = snapshot
        self._run.log(self._point(snapshot))

    def _finish(self) -> None:
        if self._latest is not None:
            if self._latest is not self._told:
                self._tell(self._latest)
            shown = self._chart(self._latest)
            if shown is not None:
                name, chart = shown
                self._run.log({name: chart, "images_decided": self._point(self._latest)["images_decided"]})
        self._run.finish()

    def _guarded(self, act: Callable[[], None]) -> None:
        """A failure is said once and ends the telling, never the certification."""
        if self._run is None:
            return
        try:
            act()
        except Exception as error:  # whatever goes wrong in there is no reason to lose draws
            self._run = None
            print(
                f"Weights & Biases failed ({type(error).__name__}: {' '.join(str(error).split())}); the certification "
                "goes on without it",
                file=sys.stderr,
            )


class WandbCurve(WandbWatcher):
    """That of randomized smoothing."""

    def __init__(self, recipe: CertifyConfig, folder: Path) -> None:
        super().__init__(recipe, folder, point, chart)


def chart(snapshot: Snapshot) -> tuple[str, Any] | None:
    """The curve over the radii as a chart of Weights & Biases, by name; None where there is none."""
    levels = [level for level in snapshot.levels if level.decided + level.failed]
    if not levels:
        return None
    import wandb

    return "certified_accuracy", wandb.plot.line_series(
        xs=[list(level.radii) for level in levels],
        ys=[accuracies(level) for level in levels],
        keys=[f"σ {level.sigma:g}" for level in levels],
        title="Certified accuracy at ℓ2 radius",
        xname="radius",
    )


def point(snapshot: Snapshot) -> dict[str, float]:
    """What is told of one moment: rates and counts of the run, then of every noise level, names such as `sigma_0.25/…`.

    Certified accuracy, a share of the images decided or given up so far, is left out while there are none.
    """
    values: dict[str, float] = {
        "images_decided": _decided(snapshot),
        "images_failed": sum(level.failed for level in snapshot.levels),
        "seconds": snapshot.seconds,
        "draws": snapshot.draws,
        "draws_per_second": snapshot.draws_per_second,
        "draws_saved": sum(level.draws_saved for level in snapshot.levels),
        "workers": len(snapshot.worker_draws_per_second),
        "blocks_retried": snapshot.blocks_retried,
    }
    for level in snapshot.levels:
        name = f"sigma_{level.sigma:g}"
        values |= {f"{name}/images_decided": level.decided, f"{name}/images_failed": level.failed}
        values |= {f"{name}/draws": level.draws, f"{name}/draws_saved": level.draws_saved}
        if level.decided + level.failed:
            for radius, accuracy in zip(level.radii, accuracies(level), strict=True):
                values[f"{name}/certified_accuracy_at_{shortest(radius)}"] = accuracy
    return values


def accuracies(level: LevelState) -> list[float]:
    """Certified accuracy at each of the level's radii, of the images decided or given up so far."""
    return [certified / (level.decided + level.failed) for certified in level.certified]


def _decided(snapshot: Snapshot) -> int:
    return sum(level.decided for level in snapshot.levels)
