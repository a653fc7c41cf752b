"""The target network: the average of the online one that gives the contrastive keys, kept as the online one is."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rrcm_dist.config.parts import TrainingConfig
from rrcm_dist.distributed.world import World
from rrcm_dist.training.zero.engine import FrozenNetwork, set_weights, whole_weights
from rrcm_dist.training.zero.parameters import move_towards


class TargetNetwork:
    """Begins as a copy of the online network; at ZeRO stage 3 it is cut up over the ranks like that.

    Its batch norms see the global batch of its own outputs and keep statistics of their own.
    """

    def __init__(self, online: nn.Module, training: TrainingConfig, world: World) -> None:
        """`online` is not in an engine's hands yet."""
        self._frozen, self._world = FrozenNetwork(copy.deepcopy(online), training, world), world

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """The network's forward, without a graph."""
        return self._frozen(*inputs, **named)

    def follow(self, online: nn.Module, rate: float) -> None:
        """target = rate · target + (1 - rate) · online for every parameter; no rank needs another for it.

        What the online network has besides, it was given after the copy was made.
        """
        parameters = dict(online.named_parameters())
        targets = dict(self._frozen.network.named_parameters())
        move_towards(list(targets.values()), [parameters[name] for name in targets], rate)

    def weights(self) -> dict[str, Tensor]:
        """Copies of all parameters and buffers on the CPU, on the main rank; every rank must call it."""
        return whole_weights(self._frozen.network, self._world.is_main)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Put in what `weights` gave, in any world; every rank must call it with the same values."""
        set_weights(self._frozen.network, weights)
