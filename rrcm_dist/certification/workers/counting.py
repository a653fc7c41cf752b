"""Class counts of a block of noise draws: what a worker does. Draws are made, noised, classified, counted on the
device.

How draws are cut into forward passes must not change a count, yet a matrix product of another shape, or on another
number of threads, rounds differently, and where two classes are nearly tied, rounding decides. So on CPU a draw whose
best two logits are nearly tied is decided by a forward pass of that draw alone on one thread: always the same
computation. Logits that lie farther apart than the stated tolerance are out of rounding's reach. On CUDA every draw is
decided by its own batch, so counts may differ by near ties between device batches and between kinds of GPU; the noise
does not.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rrcm_dist.certification.blocks import Block, BlockCounts
from rrcm_dist.certification.statistics.bounds import check_sigma
from rrcm_dist.certification.workers.calling import call_classifier, set_evaluation_mode
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.random_streams import NormalStream, Purpose

NEAR_TIE = {"fp32": 1e-3, "bf16": 3e-2}
"""Best two logits closer than this share of the row's largest magnitude are nearly tied, by precision of the network.

Far above the rounding of a deep network in that precision (about 1e-5 and 5e-3), far below what most draws show.
"""
ROW_DEPENDENCE = 0.1
"""A draw whose logits change by more than this share when it is classified alone depends on its batch."""
CUDA_NOISE_DRAWS = 50
"""Draws of noise made at once on CUDA, whatever the device batch: cut otherwise, torch's stream gives other numbers."""


class BlockNoise:
    """Standard normal float32 noise of one block, a function of (seed, image key, σ, stage, block number) alone."""

    def __init__(self, device: torch.device, seed: int, block: Block) -> None:
        self._device = device
        self._stream = NormalStream(
            device,
            Purpose.CERTIFICATION_NOISE,
            seed,
            block.key,
            float(block.sigma),
            block.stage.name.lower(),
            block.number,
        )
        self._rest: Tensor | None = None

    def draw(self, draws: int, shape: torch.Size) -> Tensor:
        """The next `draws` of the block, float32 (draws, *shape); how they are cut into calls changes nothing."""
        if self._device.type == "cpu":
            return self._stream.draw(draws, *shape)
        parts = [] if self._rest is None else [self._rest]
        while sum(len(part) for part in parts) < draws:
            parts.append(self._stream.draw(CUDA_NOISE_DRAWS, *shape))
        drawn = torch.cat(parts)
        self._rest = drawn[draws:].clone()
        return drawn[:draws]


class BlockCounter:
    """A base classifier and what it takes to count its answers under noise. Holds no state between blocks."""

    def __init__(
        self,
        classifier: nn.Module,
        seed: int,
        classes: int,
        device: torch.device,
        device_batch: int,
        precision: str,
        source: str = "given",
    ) -> None:
        """`classifier` maps float32 (N, C, H, W), [0, 1] pixels plus noise, to logits (N, `classes`).

        It is moved to `device` and put in evaluation mode. `device_batch` draws go through it at a time; `precision` is
        fp32, or bf16 for autocast. `source` names the classifier in messages.
        """
        if device_batch < 1:
            raise InvalidInput(f"device_batch must be at least 1; given {device_batch}")
        self._classifier = classifier.to(device).requires_grad_(False)
        set_evaluation_mode(self._classifier)
        self._source = source
        self._seed, self._classes, self._device = seed, classes, device
        self._device_batch, self._precision = device_batch, precision
        self._host = socket.gethostname()
        self._rows_checked = False

    def count(self, image: Tensor, block: Block) -> BlockCounts:
        """Classify the draws of `block` for `image`, uint8 (C, H, W).

        Raises `RunFailure` naming the image where the classifier fails, where the logits are of a wrong shape or not
        finite, or where the classifier's answer to one draw depends on the others in its batch.
        """
        start = time.perf_counter()
        check_sigma(block.sigma)
        set_evaluation_mode(self._classifier)
        pixels = image.to(self._device, torch.float32) / 255
        noise = BlockNoise(self._device, self._seed, block)
        totals = torch.zeros(self._classes, dtype=torch.int64, device=self._device)
        finite = torch.ones((), dtype=torch.bool, device=self._device)
        with torch.no_grad():
            for first in range(0, block.draws, self._device_batch):
                draws = min(self._device_batch, block.draws - first)
                # Two roundings, not one fused: whether a kernel fuses may depend on a number's place in the tensor.
                noisy = noise.draw(draws, pixels.shape).mul_(block.sigma).add_(pixels)
                logits = self._logits(noisy, block)
                finite &= torch.isfinite(logits).all()
                decided = self._decide(noisy, logits, block)
                totals.scatter_add_(0, decided, torch.ones_like(decided))
        counts = totals.cpu().numpy()
        if not finite:
            raise RunFailure(f"the classifier's logits are not finite (NaN or infinite) for {_describe(block)}")
        return BlockCounts(block, counts, self._host, time.perf_counter() - start)

    def _logits(self, noisy: Tensor, block: Block) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            logits = call_classifier(self._classifier, noisy, self._source, _describe(block))
        if logits.shape[1] != self._classes:
            raise RunFailure(
                f"the classifier must return logits of shape ({len(noisy)}, {self._classes}), one row a draw and one "
                f"column a class of the dataset; it returned {tuple(logits.shape)} for {_describe(block)}"
            )
        return logits

    def _decide(self, noisy: Tensor, logits: Tensor, block: Block) -> Tensor:
        """The class of each draw, int64 (N,)."""
        if not self._rows_checked and len(noisy) > 1:
            self._check_rows(noisy, logits, block)
            self._rows_checked = True
        best = logits.max(dim=1, keepdim=True)
        decided = best.indices[:, 0]
        if self._device.type != "cpu":
            return decided
        margin = NEAR_TIE[self._precision] * logits.abs().amax(dim=1, keepdim=True)
        (near_ties,) = torch.nonzero((logits >= best.values - margin).sum(dim=1) > 1, as_tuple=True)
        if len(near_ties):
            with one_thread():
                for row in near_ties.tolist():
                    # Cloned, so that its place in memory is as aligned as that of any other tensor.
                    decided[row] = self._logits(noisy[row : row + 1].clone(), block).argmax()
        return decided

    def _check_rows(self, noisy: Tensor, logits: Tensor, block: Block) -> None:
        alone = self._logits(noisy[:1].clone(), block)
        change = (alone[0] - logits[0]).abs().max() / logits[0].abs().max().clamp_min(1e-30)
        if change > ROW_DEPENDENCE:
            raise RunFailure(
                f"the classifier's answer to one draw depends on the others in its batch, or on chance (logits change "
                f"by {float(change):.0%} for {_describe(block)}): it must use no batch statistics and no random "
                "numbers in evaluation mode, or its certificates mean nothing"
            )


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one CPU thread, then on as many as before."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _describe(block: Block) -> str:
    return f"image {block.image} ({block.key}) at sigma {block.sigma}, {block.stage.name.lower()} block {block.number}"
