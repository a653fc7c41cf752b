"""What the loop asks of a step of training; pre-training and fine-tuning each have one."""

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from rrcm_dist.training.zero.averages import WeightAverages
from rrcm_dist.training.zero.engine import Engine


class Step(Protocol):
    """Networks, and what a step of training does to them."""

    engine: Engine
    averages: WeightAverages
    trained: str
    """Name of the network that the engine trains, as a file in a checkpoint."""

    def backward(self, batch: Any, step: int) -> dict[str, Tensor]:
        """Leave the step's gradients in the engine; returns scalar loss parts, one of them named 'loss'."""

    def after_update(self, step: int) -> None:
        """Called when the parameters have moved."""

    def describe(self, step: int) -> dict[str, Any]:
        """What else a step was like, for the record of a loss spike."""

    def networks(self) -> dict[str, dict[str, Tensor]]:
        """Weights that a checkpoint keeps, by file stem, on the CPU of the main rank; every rank calls it."""

    def resume_state(self) -> dict[str, dict[str, Tensor]]:
        """What else resuming needs beyond the optimiser's moments; else as `networks`."""

    def load(self, checkpoint: Path) -> None:
        """Take up what `networks` and `resume_state` gave, but for the network that the engine trains."""
