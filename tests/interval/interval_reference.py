"""Interval arithmetic the slow way, number by number in float64 with ends instead of centres: shares no code."""

import numpy as np
from torch import nn

from rrcm_dist.interval.layers import Normalize, Residual

Ends = tuple[np.ndarray, np.ndarray]


def interval_ends(network: nn.Module, lower: np.ndarray, upper: np.ndarray) -> Ends:
    """Ends of every output of one image (C, H, W) or one vector (D,), in evaluation mode."""
    if isinstance(network, nn.Sequential):
        for layer in network:
            lower, upper = interval_ends(layer, lower, upper)
        return lower, upper
    if isinstance(network, Residual):
        one, other = interval_ends(network.main, lower, upper), interval_ends(network.shortcut, lower, upper)
        return one[0] + other[0], one[1] + other[1]
    if isinstance(network, nn.Conv2d):
        return _convolution(network, lower, upper)
    if isinstance(network, nn.Linear):
        weight = _numpy(network.weight)
        bias = 0.0 if network.bias is None else _numpy(network.bias)
        ends = [_weighed(row, lower, upper) for row in weight]
        return np.array([low for low, _ in ends]) + bias, np.array([high for _, high in ends]) + bias
    if isinstance(network, nn.BatchNorm1d | nn.BatchNorm2d):
        scale = _numpy(network.weight) / np.sqrt(_numpy(network.running_var) + network.eps)
        shift = _numpy(network.bias) - scale * _numpy(network.running_mean)
        return _scaled(scale, shift, lower, upper)
    if isinstance(network, Normalize):
        scale, mean = 1 / _numpy(network.std).reshape(-1), _numpy(network.mean).reshape(-1)
        channels = len(lower)
        return _scaled(np.resize(scale, channels), np.resize(-scale * mean, channels), lower, upper)
    if isinstance(network, nn.ReLU):
        return np.maximum(lower, 0), np.maximum(upper, 0)
    if isinstance(network, nn.AvgPool2d | nn.MaxPool2d):
        reduce = np.mean if isinstance(network, nn.AvgPool2d) else np.max
        return _pooled(lower, network.kernel_size, reduce), _pooled(upper, network.kernel_size, reduce)
    if isinstance(network, nn.AdaptiveAvgPool2d):
        return lower.mean((1, 2), keepdims=True), upper.mean((1, 2), keepdims=True)
    if isinstance(network, nn.Flatten):
        return lower.reshape(-1), upper.reshape(-1)
    assert isinstance(network, nn.Identity)
    return lower, upper


def _weighed(weights: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[float, float]:
    low = high = 0.0
    for weight, least, most in zip(weights.ravel(), lower.ravel(), upper.ravel(), strict=True):
        low += weight * (least if weight > 0 else most)
        high += weight * (most if weight > 0 else least)
    return low, high


def _convolution(layer: nn.Conv2d, lower: np.ndarray, upper: np.ndarray) -> Ends:
    weight = _numpy(layer.weight)
    bias = np.zeros(len(weight)) if layer.bias is None else _numpy(layer.bias)
    kernel, stride, padding = layer.kernel_size[0], layer.stride[0], layer.padding[0]
    around = ((0, 0), (padding, padding), (padding, padding))
    lower, upper = np.pad(lower, around), np.pad(upper, around)
    size = (lower.shape[1] - kernel) // stride + 1
    ends = np.empty((2, len(weight), size, size))
    inputs, outputs = weight.shape[1], len(weight) // layer.groups
    for channel in range(len(weight)):
        first = channel // outputs * inputs
        for row in range(size):
            for column in range(size):
                where = np.s_[first : first + inputs, row * stride :, column * stride :]
                patches = [x[where][:, :kernel, :kernel] for x in (lower, upper)]
                ends[:, channel, row, column] = np.array(_weighed(weight[channel], *patches)) + bias[channel]
    return ends[0], ends[1]


def _scaled(scale: np.ndarray, shift: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> Ends:
    shape = (-1, *[1] * (lower.ndim - 1))
    one, other = (x * scale.reshape(shape) + shift.reshape(shape) for x in (lower, upper))
    return np.minimum(one, other), np.maximum(one, other)


def _pooled(x: np.ndarray, kernel: int, reduce: object) -> np.ndarray:
    channels, height, width = x.shape
    blocks = x.reshape(channels, height // kernel, kernel, width // kernel, kernel)
    return reduce(blocks, axis=(2, 4))  # type: ignore[operator]


def _numpy(tensor: object) -> np.ndarray:
    return tensor.detach().double().numpy()  # type: ignore[attr-defined]
