"""A step of certified training: clean images and their boxes go through the network together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rrcm_dist.config.ibp import IbpConfig
from rrcm_dist.config.parts import OptimizerConfig
from rrcm_dist.data.batches import LabelledBatch
from rrcm_dist.distributed.world import World
from rrcm_dist.interval.images import network_pixels
from rrcm_dist.interval.margins import least_margin, margin_cross_entropy
from rrcm_dist.interval.networks import BoundedBatch, IbpNetwork
from rrcm_dist.interval.regularizers import balance, tightness
from rrcm_dist.interval.schedule import epsilon_at
from rrcm_dist.training.parameter_groups import one_group
from rrcm_dist.training.zero.averages import WeightAverages
from rrcm_dist.training.zero.engine import Engine

LEAST_EPSILON = 1e-6
"""Of boxes that the regularisers look at, while ε is 0 or the ramp has only just begun.

How wide bounds grow does not depend on it, and radii of 1e-18, as of the first steps of a quartic ramp, would be lost
to float32. The robust loss is of the same boxes: its margins move by no more than rounding.
"""


@dataclass(frozen=True)
class EpsilonRamp:
    """ε by the step: 0 up to `start`, the target from `start + length` on."""

    target: float
    start: int
    length: int

    def at(self, step: int) -> float:
        """ε of a step."""
        return epsilon_at(step, self.target, self.start, self.length)


class IbpStep:
    """The network that is trained, and what a step does to it."""

    trained = "model"

    def __init__(self, recipe: IbpConfig, world: World, ramp: EpsilonRamp) -> None:
        self._recipe, self._world, self._ramp = recipe, world, ramp
        settings = recipe.optimizer
        network = IbpNetwork(recipe.network, recipe.classes, recipe.seed)
        optimizer = OptimizerConfig(lr=settings.lr, weight_decay=settings.weight_decay, betas=settings.betas)
        groups = one_group(network, settings.weight_decay)
        self.engine = Engine(network, groups, optimizer, recipe.training, world)
        self.averages = WeightAverages(self.engine, recipe.training.averages)

    def backward(self, batch: LabelledBatch, step: int) -> dict[str, Tensor]:
        """Gradients of the step's loss: cross-entropy of the margins' lower bounds, of the logits while ε is 0."""
        device = self._world.device
        images = network_pixels(batch.images, self._recipe.network.channels, device)
        labels = batch.labels.to(device, non_blocking=True)
        epsilon = self._ramp.at(step)
        weight = self._regularizers_weight(epsilon)
        self.engine.network.train()
        bounded = self.engine(images, labels, _box_epsilon(epsilon, weight))
        parts = _losses(bounded, labels, epsilon)
        parts |= self._regularizers(bounded, weight)
        regularizers = weight * (parts["tightness"] + parts["balance"])
        parts["loss"] = parts["robust_cross_entropy"] + regularizers
        self.engine.backward(parts["loss"])
        parts["epsilon"] = torch.full((), epsilon, device=device)
        return {name: value.detach() for name, value in parts.items()}

    def after_update(self, step: int) -> None:
        """Nothing follows the parameters."""

    def describe(self, step: int) -> dict[str, Any]:
        """The step's ε."""
        return {"epsilon": self._ramp.at(step)}

    def networks(self) -> dict[str, dict[str, Tensor]]:
        """The network; see `Step`."""
        return {self.trained: self.engine.weights()}

    def resume_state(self) -> dict[str, dict[str, Tensor]]:
        """Nothing but the optimiser."""
        return {}

    def load(self, checkpoint: Path) -> None:
        """Nothing but the trained network."""

    def _regularizers_weight(self, epsilon: float) -> float:
        """λ = λ0 (1 - ε / target)."""
        settings = self._recipe.regularizers
        wanted = settings.tightness or settings.balance
        return settings.weight * (1 - epsilon / self._ramp.target) if wanted else 0.0

    def _regularizers(self, bounded: BoundedBatch, weight: float) -> dict[str, Tensor]:
        """Both, 0 where one is left out or has no weight."""
        settings = self._recipe.regularizers
        zero = torch.zeros((), device=self._world.device)
        if not weight or bounded.pixels is None:
            return {"tightness": zero, "balance": zero}
        wide = tightness(bounded.pixels, bounded.relu_inputs, settings.tolerance) if settings.tightness else zero
        uneven = balance(bounded.relu_inputs, settings.tolerance) if settings.balance else zero
        return {"tightness": wide, "balance": uneven}


def _box_epsilon(epsilon: float, weight: float) -> float | None:
    """Of the boxes of a step, whose regularisers have this weight; None where it needs none."""
    return max(epsilon, LEAST_EPSILON) if weight else epsilon or None


def _losses(bounded: BoundedBatch, labels: Tensor, epsilon: float) -> dict[str, Tensor]:
    """Cross-entropies and errors of the batch; at ε = 0 the box is a point, and the robust ones are the clean ones."""
    clean = F.cross_entropy(bounded.logits, labels)
    clean_error = (bounded.logits.argmax(dim=1) != labels).float().mean()
    robust, verified_error = clean, clean_error
    if epsilon and bounded.margins is not None:
        robust = margin_cross_entropy(bounded.margins, labels)
        verified_error = (least_margin(bounded.margins, labels) <= 0).float().mean()
    return {
        "cross_entropy": clean,
        "robust_cross_entropy": robust,
        "clean_error": clean_error,
        "verified_error": verified_error,
    }
