"""A worker: it holds the classifiers and counts blocks for whoever asks. Knows neither Ray nor the ledger."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rrcm_dist.certification.blocks import Block, pack_counts
from rrcm_dist.certification.pool.work import Pixels
from rrcm_dist.certification.workers.counting import BlockCounter
from rrcm_dist.certification.workers.guarding import TOLD, told

ClassifierLoader = Callable[[float], nn.Module]
"""From σ to its classifier, on the CPU."""


@dataclass(frozen=True)
class Counted:
    """What became of one block: packed counts, or the reason why there are none."""

    packed: bytes
    """`blocks.pack_counts`; empty where it failed."""
    seconds: float
    problem: str = ""


@dataclass(frozen=True)
class CountingRules:
    """What decides the counts besides image, block and classifier."""

    seed: int
    classes: int
    device_batch: int
    precision: str


class CountingWorker:
    """Counts batches of blocks. Holds a classifier from its first use on; holds no state that could change a count."""

    def __init__(
        self, load: ClassifierLoader, sources: Mapping[float, str], rules: CountingRules, device: torch.device
    ) -> None:
        """`sources` names the classifier of each σ in messages."""
        self._load, self._sources, self._rules, self._device = load, sources, rules, device
        self._counters: dict[float, BlockCounter] = {}

    def work(self, units: Sequence[Block], pixels: Pixels) -> list[Counted]:
        """Count the blocks `units`, in order; `pixels` has the image of each by sample id, uint8 (C, H, W).

        A block that cannot be counted, also because its classifier cannot be loaded, says why and leaves the others
        alone. Raises `DeviceLost` where the GPU itself does not work any more.
        """
        return [self._count(block, pixels[block.image]) for block in units]

    def _count(self, block: Block, image: NDArray[np.uint8]) -> Counted:
        try:
            result = self._counter(block.sigma).count(torch.from_numpy(image), block)
        except TOLD as error:
            return Counted(b"", 0.0, told(error, self._device))
        return Counted(pack_counts(result.counts), result.seconds)

    def load(self, sigma: float) -> None:
        """Get the classifier of `sigma` now, not with the first block that needs it."""
        self._counter(sigma)

    def _counter(self, sigma: float) -> BlockCounter:
        if sigma not in self._counters:
            rules = self._rules
            self._counters[sigma] = BlockCounter(
                self._load(sigma), rules.seed, rules.classes, self._device, rules.device_batch, rules.precision,
                self._sources[sigma],
            )  # fmt: skip
        return self._counters[sigma]
