"""Batch norm of a box: by the clean batch's statistics in training, over all ranks, by the running ones in evaluation.

The statistics are those of clean images, with gradient, for the box, too (Shi et al. 2021, section 3.2): bounds of
their own would shrink every box to the same width.
"""

import torch
from torch import Tensor, nn

from rrcm_dist.distributed.collectives import ranks, sum_over_ranks
from rrcm_dist.interval.bounds import Signal


def batch_norm_signal(layer: nn.BatchNorm1d | nn.BatchNorm2d, signal: Signal) -> Signal:
    """The signal after batch norm; in training it must carry the clean batch, equally large on every rank."""
    if layer.training:
        mean, variance = _clean_statistics(layer, signal.clean)
    else:
        assert layer.running_mean is not None
        assert layer.running_var is not None
        mean, variance = layer.running_mean, layer.running_var
    scale = torch.rsqrt(variance + layer.eps)
    if layer.weight is not None:
        scale = scale * layer.weight

    def points(x: Tensor) -> Tensor:
        normalised = (x - _per_channel(mean, x)) * _per_channel(scale, x)
        return normalised if layer.bias is None else normalised + _per_channel(layer.bias, x)

    return signal.affine(points, lambda radius: radius * _per_channel(scale.abs(), radius))


def _clean_statistics(layer: nn.BatchNorm1d | nn.BatchNorm2d, clean: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel over all ranks; the layer's running ones follow."""
    if clean is None:
        raise ValueError("batch norm in training needs the clean batch beside its box")
    count = clean.numel() // clean.shape[1] * ranks()
    if count < 2:
        raise ValueError("batch norm in training needs at least two values of each channel over all ranks")
    others = [axis for axis in range(clean.ndim) if axis != 1]
    mean = sum_over_ranks(clean.sum(others)) / count
    variance = sum_over_ranks((clean - _per_channel(mean, clean)).square().sum(others)) / count
    _track(layer, mean.detach(), variance.detach() * (count / (count - 1)))
    return mean, variance


@torch.no_grad()
def _track(layer: nn.BatchNorm1d | nn.BatchNorm2d, mean: Tensor, unbiased_variance: Tensor) -> None:
    if layer.running_mean is None or layer.running_var is None or layer.num_batches_tracked is None:
        return
    layer.num_batches_tracked += 1
    momentum = layer.momentum if layer.momentum is not None else 1 / float(layer.num_batches_tracked)
    layer.running_mean.lerp_(mean, momentum)
    layer.running_var.lerp_(unbiased_variance, momentum)


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.ndim - 2))
