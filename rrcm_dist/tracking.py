"""Weights & Biases: one run there for one run folder, however often it is started."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.files import write_text

ID_FILE = "wandb-id"
"""Holds the run's id in Weights & Biases, in the run folder: a copied or moved folder stays the same run."""


def start_run(
    folder: Path,
    name: str,
    recipe: Mapping[str, Any],
    mode: Literal["offline", "online"],
    project: str,
    entity: str | None,
    step_metric: str,
) -> Any:
    """The run of `folder` in Weights & Biases, begun or gone on with; `step_metric` is the abscissa of all curves.

    `recipe` is shown as its configuration, JSON values by key. Raises `InvalidInput` where the package is missing,
    `RunFailure` where the service refuses or is out of reach.
    """
    try:
        import wandb
    except ImportError as error:
        raise InvalidInput(
            "tracking.wandb needs the package wandb: pip install 'rrcm-dist[tracking]', or set tracking.wandb=off"
        ) from error
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        run = wandb.init(
            project=project,
            entity=entity,
            name=name,
            dir=str(folder),
            mode=mode,
            config=dict(recipe),
            id=_id_of(folder),
            resume="allow",
        )
    except (wandb.Error, OSError) as error:
        raise RunFailure(
            f"Weights & Biases could not be started ({' '.join(str(error).split())}): "
            "see to `wandb login` and the network, or set tracking.wandb=offline (`wandb sync` sends it later) or off"
        ) from error
    run.define_metric(step_metric)
    run.define_metric("*", step_metric=step_metric)
    return run


def _id_of(folder: Path) -> str:
    """The same id for every start of a run, so that its curves go on."""
    file = folder / ID_FILE
    if not file.exists():
        write_text(file, secrets.token_hex(8) + "\n")
    return file.read_text(encoding="utf-8").strip()
