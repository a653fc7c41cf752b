"""Random numbers as pure functions of what they are for.

A stream is named by a purpose and coordinates (seed, step, image, …): the same name gives the same numbers in any
process, on any rank, after any restart. Nothing here reads or changes a process-wide random state.

On CPU the numbers come from NumPy's Philox (counter-based, 128-bit key), so they do not depend on threads. On CUDA they
come from torch's Philox with a 64-bit seed: other numbers than on CPU, the same on every run of one device kind.
torch's CPU generator initialises weights and serves nothing else: it keeps 32 bits of its seed, and a million streams
would collide.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor


class Purpose(StrEnum):
    """What a stream of random numbers is for. Streams of different purposes never meet."""

    INITIALIZATION = "initialization"
    SAMPLE_ORDER = "sample_order"
    VIEWS = "views"
    MIXING = "mixing"
    TRAINING_NOISE = "training_noise"
    NOISE_LEVEL = "noise_level"
    EVALUATION_NOISE = "evaluation_noise"
    CERTIFICATION_NOISE = "certification_noise"
    ATTACK = "attack"
    NEGATIVES = "negatives"


Coordinate = int | float | str


def stream_key(purpose: Purpose, *coordinates: Coordinate) -> int:
    """The 128-bit key of a stream: BLAKE2b of the purpose and the coordinates, typed, so that 1, 1.0 and "1" differ."""
    name = "\x1f".join([purpose.value, *(f"{type(c).__name__}:{c!r}" for c in coordinates)])
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), "little")


def numpy_generator(purpose: Purpose, *coordinates: Coordinate) -> np.random.Generator:
    """A NumPy generator at the start of the named stream."""
    return np.random.Generator(np.random.Philox(key=stream_key(purpose, *coordinates)))


class NormalStream:
    """Standard normal float32 numbers of one named stream, drawn in order; how they are cut into calls changes nothing.

    On CUDA the last sentence holds only for equal cuts: torch hands its Philox counters to threads per call.
    """

    def __init__(self, device: torch.device, purpose: Purpose, *coordinates: Coordinate) -> None:
        self._device = device
        key = stream_key(purpose, *coordinates)
        if device.type == "cpu":
            self._numpy = np.random.Generator(np.random.Philox(key=key))
        else:
            self._torch = torch.Generator(device).manual_seed(key & (2**63 - 1))

    def draw(self, *shape: int) -> Tensor:
        """The next numbers as a float32 tensor of `shape` on the stream's device."""
        if self._device.type == "cpu":
            return torch.from_numpy(self._numpy.standard_normal(shape, dtype=np.float32))
        return torch.randn(shape, generator=self._torch, device=self._device, dtype=torch.float32)


@contextmanager
def seeded_library_state(purpose: Purpose, *coordinates: Coordinate) -> Iterator[None]:
    """Lend `random` and `numpy.random`, which some libraries (timm's RandAugment) draw from, the named stream; then put
    the process's own states back."""
    key = stream_key(purpose, *coordinates)
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(key)
    np.random.seed(np.frombuffer(key.to_bytes(16, "little"), dtype=np.uint32))
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
