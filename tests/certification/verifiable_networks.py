"""Networks that the verification tests load as `verifiable_networks:function`."""

import os
import time

import torch
from torch import Tensor, nn


def small() -> nn.Sequential:
    """A convolutional network on 3×8×8 images, ten classes, weights small enough for bounds to prove something."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(96, 16), nn.ReLU(),
            nn.Linear(16, 10),
        )  # fmt: skip


def dropping() -> nn.Sequential:
    """`small` with dropout, in training mode."""
    return nn.Sequential(nn.Dropout2d(0.5), *small()).train()


def unknown() -> nn.Sequential:
    """A layer in it that no bounds are known for."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(144, 10))


def nine_classes() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 9))


def slow() -> nn.Sequential:
    """`small`, in a process every pass of which takes SECONDS_PER_PASS, so that there is time to kill it."""
    nn.modules.module.register_module_forward_pre_hook(_wait)  # one of its own would be refused
    return small()


def _wait(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if isinstance(module, nn.Sequential):
        time.sleep(float(os.environ.get("SECONDS_PER_PASS", "0")))


def other() -> nn.Sequential:
    """`small` with another bias."""
    network = small()
    with torch.no_grad():
        network[-1].bias.add_(0.01)
    return network
