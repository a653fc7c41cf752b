"""What a published system may add to pre-training: hooks of a step, of a run's beginning, and of its checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.data.batches import PretrainingBatch
from rrcm_dist.distributed.world import World
from rrcm_dist.models.rrcm import PretrainingNetwork
from rrcm_dist.objectives.contrastive import Negatives
from rrcm_dist.objectives.pretraining import PretrainingKeys
from rrcm_dist.training.work import Work

if TYPE_CHECKING:
    from rrcm_dist.training.loop import Training
    from rrcm_dist.training.noisy_views import NoisyViews


@dataclass(frozen=True)
class Outputs:
    """What the online network makes of all rows of a rank at a step; with gradient."""

    representations: Tensor
    """(3, n, D) float32 of the views A and B at t_min and P at t_i."""
    projections: Tensor
    """(2, n, output) float32 of the views A and B."""


class Addition:
    """Does nothing; what a system needs, it overrides. Every rank calls every hook at the same moments.

    In order: `check`, `stage_before` and, in the main stage, `start`, `attach`; at a step `negatives`, `head_inputs`,
    `batch_loss`, then `parts`. Nothing in a step may make the host wait for the device.
    """

    def __init__(self, recipe: PretrainConfig, total_steps: int, world: World) -> None:
        """What it holds in the main stage; settings have passed `check`."""

    @classmethod
    def check(cls, recipe: PretrainConfig, total_steps: int, world: World) -> None:
        """Raise `InvalidInput` for settings that cannot be; called before any stage is put together."""

    @classmethod
    def stage_before(cls, recipe: PretrainConfig, world: World) -> "Training | None":
        """A training that the same launch runs before the main one, in a folder within its output; None for none."""
        return None

    def start(self, network: PretrainingNetwork) -> None:
        """Change the weights that the online network starts from, before the target network is copied from it.

        Called where the run goes on from a checkpoint, too, whose weights then take their place.
        """

    def attach(self, network: PretrainingNetwork) -> None:
        """Give the online network heads, which are trained with it."""

    def negatives(self, batch: PretrainingBatch, keys: PretrainingKeys, step: int) -> Negatives | None:
        """Further negatives of the contrastive terms."""
        return None

    def batch_loss(self, outputs: Outputs, batch: PretrainingBatch, step: int) -> Tensor | None:
        """A scalar loss of this rank, of all its rows together; its gradient is averaged over ranks."""
        return None

    def head_inputs(self, views: "NoisyViews", rows: slice) -> dict[str, Tensor]:
        """What the heads of `attach` are given for these rows, by their names."""
        return {}

    def head_weights(self, step: int) -> Mapping[str, float]:
        """By which number each head's loss is multiplied, by its name."""
        return {}

    def parts(self) -> dict[str, Tensor]:
        """Scalars of the step for the metrics, means over the rank's rows."""
        return {}

    def work(self) -> Work:
        """The arithmetic that it adds to each step and that it had done before the first one."""
        return Work()

    def resume_state(self) -> dict[str, dict[str, Tensor]]:
        """What resuming needs, by file stem and name, on the CPU of the main rank, whatever ranks there are."""
        return {}

    def load(self, checkpoint: Path) -> None:
        """Take up what `resume_state` gave, on any number of ranks; nothing where the checkpoint has none of it."""
