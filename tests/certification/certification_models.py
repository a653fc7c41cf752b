"""Classifiers that the certification tests load as `certification_models:function`."""

import os
import time

import torch
from torch import nn


class NearTies(nn.Module):
    """Every class has a twin whose logit is the same sum in another order: equal but for rounding."""

    def __init__(self, pixels=3 * 8 * 8, hidden=256, classes=6):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Linear(pixels, hidden)
        self.last = nn.Linear(hidden, classes, bias=False)
        shuffle = torch.randperm(hidden, generator=generator)
        with torch.no_grad():
            self.first.weight.normal_(generator=generator)
            self.first.bias.normal_(generator=generator)
            self.last.weight.normal_(generator=generator)
            half = hidden // 2
            self.first.weight[half:] = self.first.weight[:half]
            self.first.bias[half:] = self.first.bias[:half]
            for twin in range(0, classes, 2):
                self.last.weight[twin + 1] = self.last.weight[twin].roll(half)
        self.register_buffer("shuffle", shuffle)

    def forward(self, x):
        return self.last(torch.relu(self.first(x.flatten(1))))


def near_ties():
    return NearTies()


def small():
    """A convolutional network on 3×8×8 images, ten classes."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(), nn.Flatten(),
            nn.Linear(1024, 10),
        )  # fmt: skip


def small_scaled(sigma):
    """`small`, its last layer scaled by σ: other weights at each noise level."""
    module = small()
    with torch.no_grad():
        module[-1].weight.mul_(1 + sigma)
    return module


class Slow(nn.Module):
    """`small`, slowed down so that there is time to kill it, counting its passes in a file."""

    def __init__(self):
        super().__init__()
        self.inner = small()

    def forward(self, x):
        time.sleep(float(os.environ.get("SECONDS_PER_PASS", "0")))
        return self.inner(x)


def slow():
    return Slow()


def no_module():
    return "not a network"


def broken():
    raise ValueError("no such file")
