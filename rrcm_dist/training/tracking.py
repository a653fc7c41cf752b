"""Weights & Biases: one run there for one run folder, however often it is started."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.distributed.collectives import agree
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import InvalidInput, RRCMError, RunFailure
from rrcm_dist.files import write_text

ID_FILE = "wandb-id"
"""Holds the run's id in Weights & Biases, in the run folder: a copied or moved folder stays the same run."""


class Tracker:
    """A run in Weights & Biases, kept by the main rank; where tracking is off, and on other ranks, it does nothing."""

    def __init__(self, recipe: PretrainConfig | FinetuneConfig, folder: Path, world: World) -> None:
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


def _start(recipe: PretrainConfig | FinetuneConfig, folder: Path) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise InvalidInput(
            "tracking.wandb needs the package wandb: pip install 'rrcm-dist[tracking]', or set tracking.wandb=off"
        ) from error
    os.environ.setdefault("WANDB_SILENT", "true")
    tracking = recipe.tracking
    assert tracking.wandb != "off"
    try:
        run = wandb.init(
            project=tracking.project,
            entity=tracking.entity,
            name=recipe.name,
            dir=str(folder),
            mode=tracking.wandb,
            config=recipe.model_dump(mode="json"),
            id=_id_of(folder),
            resume="allow",
        )
    except (wandb.Error, OSError) as error:
        raise RunFailure(
            f"Weights & Biases could not be started ({' '.join(str(error).split())}): "
            "see to `wandb login` and the network, or set tracking.wandb=offline (`wandb sync` sends it later) or off"
        ) from error
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return run


def _id_of(folder: Path) -> str:
    """The same id for every start of a run, so that its curves go on."""
    file = folder / ID_FILE
    if not file.exists():
        write_text(file, secrets.token_hex(8) + "\n")
    return file.read_text(encoding="utf-8").strip()
