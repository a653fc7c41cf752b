"""Errors of one unit of work told in words, so that the others of its batch go on; a lost device told apart."""

import socket

import torch

from rrcm_dist.errors import RRCMError, RunFailure

TOLD = (RRCMError, RuntimeError, MemoryError, OSError)
"""Errors that say something of a unit, ours and torch's own (out of memory, a lost device); others are mistakes."""


class DeviceLost(RunFailure):
    """Nothing more can be computed on the device by this process."""


def told(error: Exception, device: torch.device) -> str:
    """One of `TOLD` in a line, with this host's name.

    Raises `DeviceLost` where the GPU itself does not work any more: some errors there (a failed assertion in a kernel)
    spoil all that the process does.
    """
    host = socket.gethostname()
    if device.type == "cuda":
        try:
            torch.ones(1, device=device).sum().item()
        except RuntimeError as lost:
            raise DeviceLost(f"the GPU of {host} does not work any more in this process: {error}") from lost
    if isinstance(error, RRCMError):
        return f"{host}: {error}"
    return f"{host}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
