"""A worker that verifies: interval bounds as the certificate, PGD as the check from above. Knows no ledger and no Ray.

What comes of an image must not depend on the images beside it, yet a pass of another shape, or on another number of
threads, rounds differently, and PGD follows signs of gradients. So on CPU every image goes through alone, its restarts
together, on one thread; on CUDA every pass has one shape, filled up where images are few. TF32, which keeps ten bits,
would make bounds wrong: it is off.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rrcm_dist.certification.pool.work import Pixels
from rrcm_dist.certification.verification.images import Checked, ImageAtEpsilon
from rrcm_dist.certification.workers.calling import call_classifier
from rrcm_dist.certification.workers.counting import one_thread
from rrcm_dist.certification.workers.guarding import TOLD, told
from rrcm_dist.config.verify import AttackConfig
from rrcm_dist.interval.attack import pgd_margins
from rrcm_dist.interval.images import network_pixels
from rrcm_dist.interval.verification import require_verifiable, verified_margins
from rrcm_dist.random_streams import Purpose, stream_key


@dataclass(frozen=True)
class VerificationRules:
    """What decides a result besides image, ε and network."""

    seed: int
    attack: AttackConfig
    device_batch: int


def images_per_pass(rules: VerificationRules, device: torch.device) -> int:
    """Images that go through the network together, each with all its restarts."""
    return 1 if device.type == "cpu" else max(1, rules.device_batch // max(1, rules.attack.restarts))


class VerificationWorker:
    """Verifies batches of images. Holds no state that could change a result."""

    def __init__(
        self, network: nn.Module, channels: int, source: str, rules: VerificationRules, device: torch.device
    ) -> None:
        """`network` takes images of `channels` (1 or 3); `source` names it in messages.

        Raises `InvalidInput` naming a layer that no bounds are known for.
        """
        require_verifiable(network)
        self._network = network.to(device).requires_grad_(False).eval()
        self._channels, self._source, self._rules, self._device = channels, source, rules, device
        self._size = images_per_pass(rules, device)

    def work(self, units: Sequence[ImageAtEpsilon], pixels: Pixels) -> list[Checked]:
        """One answer a unit, in order; `pixels` has the image of each by sample id, uint8 (3, H, W).

        An image that cannot be verified says why and leaves the others alone. Raises `DeviceLost` where the GPU itself
        does not work any more.
        """
        answers: dict[ImageAtEpsilon, Checked] = {}
        for epsilon in dict.fromkeys(unit.epsilon for unit in units):
            here = [unit for unit in units if unit.epsilon == epsilon]
            for first in range(0, len(here), self._size):
                chunk = here[first : first + self._size]
                answers |= zip(chunk, self._told(chunk, pixels), strict=True)
        return [answers[unit] for unit in units]

    def _told(self, units: Sequence[ImageAtEpsilon], pixels: Pixels) -> list[Checked]:
        """`_check`, or the reason why not; where several fail together, each is tried by itself."""
        try:
            return self._check(units, pixels)
        except TOLD as error:
            problem = told(error, self._device)
        if len(units) == 1:
            return [Checked(0, 0.0, 0.0, 0.0, problem)]
        return [answer for unit in units for answer in self._told([unit], pixels)]

    def _check(self, units: Sequence[ImageAtEpsilon], pixels: Pixels) -> list[Checked]:
        start = time.perf_counter()
        filled = [*units, *[units[-1]] * (self._size - len(units))]
        stacked = torch.stack([torch.from_numpy(pixels[unit.image]) for unit in filled])
        images = network_pixels(stacked, self._channels, self._device)
        labels = torch.tensor([unit.label for unit in filled], device=self._device)
        epsilon = units[0].epsilon
        with exact(self._device):
            with torch.no_grad():
                logits = call_classifier(self._network, images, self._source, f"image {units[0].image}")
            margins = verified_margins(self._network, images, labels, epsilon)
            attacked = self._attack(filled, images, labels)
        predictions = logits.argmax(dim=1).tolist()
        seconds = (time.perf_counter() - start) / len(units)
        found = zip(units, predictions, margins.tolist(), attacked.tolist(), strict=False)
        checked = [Checked(prediction, margin, attack, seconds) for _, prediction, margin, attack in found]
        finite = torch.isfinite(logits).all(dim=1) & torch.isfinite(margins) & torch.isfinite(attacked)
        problem = "the network's logits or bounds are not finite (NaN or infinite)"
        return [
            one if good else replace(one, problem=problem) for one, good in zip(checked, finite.tolist(), strict=False)
        ]

    def _attack(self, units: Sequence[ImageAtEpsilon], images: Tensor, labels: Tensor) -> Tensor:
        """Least margins (N,); every restart is a row of its own, with a stream named by seed, image, ε and restart."""
        attack, epsilon = self._rules.attack, units[0].epsilon
        restarts = max(attack.restarts, 1)
        seeds = [self._stream(unit, restart) for unit in units for restart in range(restarts)]
        rows = images.repeat_interleave(restarts, dim=0), labels.repeat_interleave(restarts)
        least = pgd_margins(self._network, *rows, epsilon, attack.steps, min(attack.restarts, 1), seeds)
        return least.view(len(units), restarts).amin(dim=1)

    def _stream(self, unit: ImageAtEpsilon, restart: int) -> int:
        key = stream_key(Purpose.ATTACK, self._rules.seed, unit.key, float(unit.epsilon), restart)
        return key & (2**63 - 1)


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Float32 throughout and the same numbers at every call: on CPU one thread, on CUDA neither TF32 nor chance."""
    if device.type != "cuda":
        with one_thread():
            yield
        return
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        matmul.allow_tf32 = before
