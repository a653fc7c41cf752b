"""A whole run written out plainly, and what it takes for a run of ours to be the same."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rrcm_dist.distributed.world import World
from rrcm_dist.schedules import learning_rate
from rrcm_dist.training.loop import Training, train

EPS_AND_LR = {"as trained": (1e-8, 2e-3), "sensitive to the gradient's scale": (1.0, 2e-2)}
"""AdamW hides a wrong scale of the gradient, unless its eps is large: so runs are compared under both."""
RELATIVE = {"as trained": 2e-4, "sensitive to the gradient's scale": 2e-5}
"""Largest error allowed, as a share of how far the tensor's farthest element moved; eight and four times what was seen.
A small eps amplifies the rounding of gradients that are nearly zero."""
UNITS_IN_THE_LAST_PLACE = 4
"""Allowed besides: an average in one operation (lerp) rounds otherwise than one in two."""


@dataclass
class PlainRun:
    """'stem/name' → weights and buffers, before and after; losses and gradient norms (before clipping) by step."""

    start: dict[str, Tensor]
    end: dict[str, Tensor] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)

    def step(self, optimizer: torch.optim.Optimizer, loss: Tensor, clip: float | None) -> None:
        """Gradient, clipping, update."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, float("inf") if clip is None else clip)
        optimizer.step()
        self.losses.append(float(loss.detach()))
        self.gradient_norms.append(float(norm))


def state_of(**networks: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers."""
    return {
        f"{stem}/{name}": tensor.detach().clone()
        for stem, network in networks.items()
        for name, tensor in network.state_dict().items()
    }


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, recipe, warmup_steps: int) -> None:
    """Each group's is the schedule's times its own 'factor'."""
    lr = learning_rate(step, recipe.optimizer.lr, warmup_steps, recipe.training.steps)
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("factor", 1.0)


def train_with(eps: float, training: Training, world: World) -> None:
    """`train` to the end with another eps than AdamW's own."""
    for group in training.step.engine._engine.optimizer.param_groups:
        group["eps"] = eps
    train(training, world)


def assert_same_run(output: Path, plain: PlainRun, kind: str) -> None:
    """The run in a run folder went where the plain one went, loss by loss, to the same weights and buffers."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [*range(1, len(plain.losses) + 1)]
    for line, loss, norm in zip(steps, plain.losses, plain.gradient_norms, strict=True):
        assert abs(line["loss"] / loss - 1) < 2e-6, (output, line, loss)
        assert abs(line["gradient_norm"] / norm - 1) < 2e-5, (output, line, norm)
    checkpoint = output / "checkpoints" / (output / "checkpoints" / "latest").read_text().strip()
    end = {
        f"{file.stem}/{name}": tensor
        for file in checkpoint.glob("*.safetensors")
        if file.stem != "probe"
        for name, tensor in load_file(file).items()
    }
    assert end.keys() == plain.end.keys()
    for name, expected in plain.end.items():
        error = _largest(end[name], expected)
        rounding = UNITS_IN_THE_LAST_PLACE * 2**-23 * float(expected.abs().max())
        allowed = RELATIVE[kind] * _largest(expected, plain.start[name]) + rounding
        assert error <= allowed, f"{output.name}: {name} is off by {error}; {allowed} would be rounding"


def moved(plain: PlainRun) -> Callable[[str], bool]:
    """Whether the plain run changed a tensor."""
    return lambda name: not plain.start[name].equal(plain.end[name])


def _largest(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().max())
