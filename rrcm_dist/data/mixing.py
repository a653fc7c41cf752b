"""Mixup and CutMix as in timm's `Mixup` (mode "batch"), but stream by stream, so that ranks change nothing.

Within each canonical stream's share of a global batch one λ and one box are drawn, by (seed, step, stream), and the
samples are paired first with last, second with last but one, and so on. Zhang et al. 2018; Yun et al. 2019.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from rrcm_dist.config.parts import MixingConfig
from rrcm_dist.random_streams import Purpose, numpy_generator


class Mix(NamedTuple):
    """How one stream's share is mixed: every image keeps `kept` of itself outside the box and nothing within."""

    kept: float
    """λ of mixup; 1 for CutMix."""
    top: int
    bottom: int
    left: int
    right: int
    own_label: float
    """Weight of an image's own label: λ, for CutMix by the true area of the box."""


def mix(
    images: Tensor,
    labels: Tensor,
    classes: int,
    config: MixingConfig,
    seed: int,
    step: int,
    first_stream: int,
    streams_here: int,
) -> tuple[Tensor, Tensor]:
    """Mix a rank's share of a global batch: images float32 (N, C, H, W), labels int64 (N,), on one device.

    The rows are those of streams first_stream … first_stream + streams_here - 1, N / streams_here each. Returns the
    mixed images and the soft targets, float32 (N, classes), with label smoothing; with mixing off, the images
    themselves and smoothed one-hot targets.
    """
    targets = _smoothed(labels, classes, config.label_smoothing)
    if config.mixup == 0 and config.cutmix == 0:
        return images, targets
    height, width = images.shape[-2:]
    streams = range(first_stream, first_stream + streams_here)
    mixes = [_draw(numpy_generator(Purpose.MIXING, seed, step, s), config, height, width) for s in streams]
    drawn_S6 = torch.tensor(mixes, dtype=torch.float32)
    if images.is_cuda:
        drawn_S6 = drawn_S6.pin_memory().to(images.device, non_blocking=True)
    weights = _weights(drawn_S6, height, width)  # (S, 1, 1, H, W)
    images_SBCHW = images.unflatten(0, (streams_here, -1))
    mixed = images_SBCHW * weights + images_SBCHW.flip(1) * (1 - weights)
    own_label = drawn_S6[:, 5, None, None]
    targets_SBK = targets.unflatten(0, (streams_here, -1))
    mixed_targets = targets_SBK * own_label + targets_SBK.flip(1) * (1 - own_label)
    return mixed.flatten(0, 1), mixed_targets.flatten(0, 1)


def _smoothed(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    return one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes


def _draw(generator: np.random.Generator, config: MixingConfig, height: int, width: int) -> Mix:
    cuts = config.cutmix > 0 and (config.mixup == 0 or generator.random() < config.switch_probability)
    alpha = config.cutmix if cuts else config.mixup
    kept = generator.beta(alpha, alpha)
    if not cuts:
        return Mix(kept, 0, 0, 0, 0, own_label=kept)
    side = math.sqrt(1 - kept)
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    row, column = int(generator.integers(height)), int(generator.integers(width))
    top, bottom = max(row - half_height, 0), min(row + half_height, height)
    left, right = max(column - half_width, 0), min(column + half_width, width)
    return Mix(1.0, top, bottom, left, right, own_label=1 - (bottom - top) * (right - left) / (height * width))


def _weights(drawn_S6: Tensor, height: int, width: int) -> Tensor:
    """Share of itself that an image keeps at each pixel, (S, 1, 1, height, width)."""
    kept, top, bottom, left, right, _ = drawn_S6[:, :, None, None, None, None].unbind(1)
    rows = torch.arange(height, device=drawn_S6.device)[:, None]
    columns = torch.arange(width, device=drawn_S6.device)
    within = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    return kept * ~within
