"""A linear classifier trained beside pre-training: how well a linear layer tells the classes."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from rrcm_dist.config.parts import ProbeConfig
from rrcm_dist.distributed.collectives import ranks, sum_over_ranks
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import InvalidInput


class LinearProbe:
    """Softmax regression on detached representations, by AdamW at a constant rate on the exact global batch.

    It starts from zero weights and draws nothing at random, so that the run it watches is the same with and without it;
    every rank holds the same whole weights.
    """

    def __init__(self, width: int, classes: int, config: ProbeConfig, world: World) -> None:
        self._weight = torch.zeros(classes, width, device=world.device, requires_grad=True)
        self._bias = torch.zeros(classes, device=world.device, requires_grad=True)
        self._parameters = {"head.weight": self._weight, "head.bias": self._bias}
        self._optimizer = torch.optim.AdamW([self._weight, self._bias], lr=config.lr, weight_decay=0.0)

    def learn(self, representations: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One step; every rank must call it, with equally many rows.

        Args:
            representations: (n, D) float, of the rank's images; nothing flows back into them.
            labels: (n,) int64.

        Returns:
            'probe_loss' and 'probe_accuracy' before the step: scalars, means over the rank's rows.
        """
        with torch.enable_grad(), torch.autocast(representations.device.type, enabled=False):
            logits = F.linear(representations.detach().float(), self._weight, self._bias)
            loss = F.cross_entropy(logits, labels)
            gradients = torch.autograd.grad(loss, [self._weight, self._bias])
        mean = sum_over_ranks(torch.cat([gradient.flatten() for gradient in gradients])) / ranks()
        self._weight.grad = mean[: self._weight.numel()].view_as(self._weight)
        self._bias.grad = mean[self._weight.numel() :]
        self._optimizer.step()
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        return {"probe_loss": loss.detach(), "probe_accuracy": accuracy}

    @torch.no_grad()
    def accuracy(self, representations: Tensor, labels: Tensor) -> float:
        """Share of (n, D) float representations that are classified as (n,) int64 labels say."""
        predicted = F.linear(representations.float(), self._weight, self._bias).argmax(dim=1)
        return (predicted == labels).float().mean().item()

    def state(self) -> dict[str, Tensor]:
        """Weights, and AdamW's moments and number of steps, by name; the same on every rank."""
        tensors = {name: parameter.detach() for name, parameter in self._parameters.items()}
        for name, parameter in self._parameters.items():
            for part, value in self._optimizer.state[parameter].items():
                tensors[f"{name}.{part}"] = value
        return tensors

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave. Raises `InvalidInput`, and changes nothing, where it is of other classes."""
        there, here = state["head.weight"].shape, self._weight.shape
        if there != here:
            raise InvalidInput(
                f"the probe of the checkpoint is for {there[0]} classes of width {there[1]}, and here are {here[0]} of "
                f"width {here[1]}: set probe.on=false, or give data of the same classes"
            )
        for name, parameter in self._parameters.items():
            parameter.copy_(state[name])
            parts = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            # AdamW counts its steps on the host.
            self._optimizer.state[parameter] = {
                part: value.clone() if part == "step" else value.to(parameter.device, copy=True)
                for part, value in parts.items()
            }
