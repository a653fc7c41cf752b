"""Exponential averages of the trained weights, kept beside them for evaluation; training does not see them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from rrcm_dist.training.zero.engine import Engine
from rrcm_dist.training.zero.parameters import drop_whole, own_part, own_part_of, put

WARM_UP = 10
"""The k-th update (from 0) averages at most at the rate (1 + k) / (10 + k), so that the start is soon forgotten."""


class WeightAverages:
    """At most two averages of an engine's parameters, each rank keeping its part; buffers are the network's own."""

    def __init__(self, engine: Engine, rates: Sequence[float]) -> None:
        self._engine = engine
        self._parameters = list(engine.network.parameters())
        self._averages = {
            f"average-{rate:g}": (rate, [own_part(parameter).clone() for parameter in self._parameters])
            for rate in rates
        }

    @property
    def names(self) -> tuple[str, ...]:
        """'average-RATE', which is also the stem of the file in a checkpoint."""
        return tuple(self._averages)

    def update(self, step: int) -> None:
        """average = rate · average + (1 - rate) · weights, after the update of a step (from 0)."""
        for rate, parts in self._averages.values():
            now = [own_part(parameter) for parameter in self._parameters]
            with torch.no_grad():
                torch._foreach_lerp_(parts, now, 1 - min(rate, (1 + step) / (WARM_UP + step)))

    @contextmanager
    def in_place(self, name: str) -> Iterator[None]:
        """Within, the engine's network bears the average instead of its weights, which are the same bits afterwards."""
        _, parts = self._averages[name]
        kept = [own_part(parameter).clone() for parameter in self._parameters]
        self._set(parts)
        try:
            yield
        finally:
            self._set(kept)

    def evaluate(self, evaluate: Callable[[], dict[str, float]]) -> dict[str, float]:
        """What `evaluate` gives for the weights as they are, and under 'average-RATE/…' for every average."""
        results = evaluate()
        if not results:
            return {}
        for name in self.names:
            with self.in_place(name):
                results |= {f"{name}/{what}": value for what, value in evaluate().items()}
        return results

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Whole averages and buffers on the CPU of the main rank, by name; every rank must call it."""
        found = {}
        for name in self.names:
            with self.in_place(name):
                found[name] = self._engine.weights()
        return found

    def load(self, read: Callable[[str], dict[str, Tensor] | None]) -> None:
        """Put in what `weights` gave, in any world; `read` gives it by name, None for one that was not kept then.

        That one begins with the engine's weights of now.
        """
        for name, (_, parts) in self._averages.items():
            values = read(name) or {}
            for part, (of, parameter) in zip(parts, self._engine.network.named_parameters(), strict=True):
                if of in values:
                    put(part, own_part_of(parameter, values[of].to(part.device)))
                else:
                    part.copy_(own_part(parameter))

    def _set(self, parts: Sequence[Tensor]) -> None:
        with torch.no_grad():
            torch._foreach_copy_([own_part(parameter) for parameter in self._parameters], list(parts))
        for parameter in self._parameters:
            drop_whole(parameter)
