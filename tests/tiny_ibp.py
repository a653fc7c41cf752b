"""A recipe of certified training that takes seconds on the digits of `tiny`."""

from pathlib import Path
from typing import Any

from rrcm_dist.config.ibp import IbpConfig


def ibp_recipe(shards: Path, output: Path, network: dict[str, Any] | None = None, **training: Any) -> IbpConfig:
    return IbpConfig.model_validate(
        {
            "name": "tiny",
            "output": str(output),
            "classes": 10,
            "network": {"image_size": 8, "channels": 1, "width": 3, "hidden": 16, **(network or {})},
            "epsilon": {"target": 0.05, "clean_epochs": 0, "ramp_epochs": 0},
            "data": {
                "train": str(shards / "train"),
                "held_out": str(shards / "held-out"),
                "streams": 12,
                "workers": 0,
            },
            "views": {"padding": 1, "flip": 0.5},
            "optimizer": {"lr": 1e-3},
            "training": {"steps": 8, "batch": 24, "checkpoint_every": 2, "log_every": 1, **training},
            "evaluation": {"every_epochs": 1, "images": 50},
        }
    )
