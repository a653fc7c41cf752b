"""What training tells Weights & Biases: the main rank's metrics, step by step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rrcm_dist.config.keys import TrainingRecipe
from rrcm_dist.distributed.collectives import agree
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import RRCMError
from rrcm_dist.tracking import start_run


class Tracker:
    """A run in Weights & Biases, kept by the main rank; where tracking is off, and on other ranks, it does nothing."""

    def __init__(self, recipe: TrainingRecipe, folder: Path, world: World) -> None:
        """Every rank must call it. Raises on all alike, before anything is trained, where it cannot be started:

        `InvalidInput` where the package is missing, `RunFailure` where the service refuses or is out of reach.
        """
        self._run: Any = None
        if recipe.tracking.wandb == "off":
            return
        problem: RRCMError | None = None
        if world.is_main:
            try:
                self._run = _start(recipe, folder)
            except RRCMError as error:
                problem = error
        problem = agree(problem)
        if problem is not None:
            raise problem

    def log(self, values: Mapping[str, Any]) -> None:
        """Metrics of one step, among them `step`: a resumed run may tell a step again, which W&B's own would drop."""
        if self._run is not None:
            self._run.log(dict(values))

    def close(self) -> None:
        """Finish what is to be sent."""
        if self._run is not None:
            self._run.finish()


def _start(recipe: TrainingRecipe, folder: Path) -> Any:
    tracking = recipe.tracking
    assert tracking.wandb != "off"
    return start_run(
        folder,
        recipe.name,
        recipe.model_dump(mode="json"),
        mode=tracking.wandb,
        project=tracking.project,
        entity=tracking.entity,
        step_metric="step",
    )
