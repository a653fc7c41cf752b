"""Classifiers whose faults are told from outside, through files in the folder that FAULTS_FOLDER names.

slow        seconds that a pass takes
marked      what becomes of images whose red, green or blue is white throughout, as in: raise nan shape
lie         one worker, the first to pass here, calls every class by the name of the next
refuse      what the function does in a worker: other (weights), import, exit
passes-PID  one byte a pass of the process PID
"""

import contextlib
import os
import time
from pathlib import Path

import torch
from certification_models import small
from torch import nn


def folder():
    return Path(os.environ["FAULTS_FOLDER"])


def told(name):
    with contextlib.suppress(FileNotFoundError):
        return (folder() / name).read_text()
    return ""


def in_worker():
    return told("driver") != str(os.getpid())


class Faulty(nn.Module):
    """`small` with faults; the same weights."""

    def __init__(self):
        super().__init__()
        self.inner = small()

    def forward(self, x):
        with open(folder() / f"passes-{os.getpid()}", "ab") as file:
            file.write(b".")
        time.sleep(float(told("slow") or 0))
        logits = self.inner(x)
        for channel, fault in enumerate(told("marked").split()):
            if x[:, channel].mean() > 0.8:
                logits = failing(logits, fault)
        return logits.roll(1, dims=1) if told("lie") and in_worker() and lies() else logits


def failing(logits, fault):
    if fault == "raise":
        raise ValueError("a white image")
    if fault == "exit":
        os._exit(1)
    return logits[:, :9] if fault == "shape" else logits * float("nan")


def lies():
    with contextlib.suppress(FileExistsError):
        (folder() / "liar").symlink_to(str(os.getpid()))
    return os.readlink(folder() / "liar") == str(os.getpid())


def net():
    return Faulty()


def refusing(sigma):
    """Refuses in workers, at every σ but 0.25, or there too."""
    fault, everywhere, _ = told("refuse").partition(" everywhere")
    network = Faulty()
    if in_worker() and (everywhere or sigma != 0.25):
        if fault == "exit":
            os._exit(1)
        if fault == "import":
            raise ImportError("no such library on this node")
        with torch.no_grad():
            network.inner[-1].bias.add_(1)
    return network
