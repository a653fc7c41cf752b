"""The photometric half of MoCo-v3's views, in batch on the images' device: colour jitter, greyscale, blur, solarise.

Parameters are drawn per sample by the loader's workers; applying them is plain arithmetic on [0, 1] floats that equals
torchvision's functional transforms to rounding. A sample's result does not depend on what else is in the batch (on CPU
to the bit, which a test holds).
"""

from collections.abc import Callable, Iterator
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from rrcm_dist.config.parts import PretrainingViews

BLUR_RADIUS = 6
"""Pixels to either side that the blur reaches: three standard deviations of its widest, σ = 2."""
SOLARIZE_THRESHOLD = 128 / 255
CPU_PIXELS = 100_000
"""Pixels processed at once on a CPU, as its cache holds them: one image of 224, many small ones."""
CUDA_BATCH = 256
"""Images processed at once on a device: bounds the temporaries to about 1 GB at 224 pixels."""
GREY_WEIGHTS = (0.2989, 0.587, 0.114)
"""ITU-R 601-2 luma of red, green and blue, as torchvision has it."""


class Column(IntEnum):
    """Columns of the parameters. Brightness to hue are applied in the order of the four columns from ORDER on."""

    BRIGHTNESS = 0
    CONTRAST = 1
    SATURATION = 2
    HUE = 3
    ORDER = 4
    """Four columns: which of the columns 0 to 3 is applied first, second, …; -1 for none."""
    GREYSCALE = 8
    BLUR_SIGMA = 9
    """Standard deviation in pixels; 0 for none."""
    SOLARIZE = 10


COLUMNS = 11
JITTERS = 4

Operation = Callable[[Tensor, Tensor], Tensor]


def draw_photometric(generator: np.random.Generator, views: PretrainingViews, view: int) -> np.ndarray:
    """Parameters of one sample for view a (`view` 0) or b (1), float32 (COLUMNS,)."""
    row = [0.0] * COLUMNS  # plain floats: NumPy's calls cost more than these few numbers
    chances, extents = generator.random((2, JITTERS)).tolist()
    order = generator.permutation(JITTERS).tolist()
    if chances[0] < views.jitter_probability:
        for column, (strength, extent) in enumerate(zip(views.jitter, extents, strict=True)):
            lowest = max(1 - strength, 0)
            row[column] = lowest + extent * (1 + strength - lowest)
        row[Column.HUE] = (2 * extents[Column.HUE] - 1) * views.jitter[Column.HUE]
    else:
        order = [-1] * JITTERS
    row[Column.ORDER : Column.ORDER + JITTERS] = order
    row[Column.GREYSCALE] = chances[1] < views.greyscale_probability
    if chances[2] < views.blur_probability[view]:
        row[Column.BLUR_SIGMA] = generator.uniform(*views.blur_sigma)
    row[Column.SOLARIZE] = chances[3] < views.solarize_probability[view]
    return np.array(row, dtype=np.float32)


def apply_photometric(images: Tensor, parameters: Tensor) -> Tensor:
    """Transform uint8 (N, 3, H, W) by float32 (N, COLUMNS) to float32 (N, 3, H, W) in [-1, 1] on the images' device.

    `parameters` stay on the CPU: they decide which samples an operation touches, and reading them from a GPU would wait
    for it.
    """
    parameters = parameters.cpu()
    height, width = images.shape[2:]
    at_once = max(1, CPU_PIXELS // (height * width)) if images.device.type == "cpu" else CUDA_BATCH
    transformed = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    for first in range(0, len(images), at_once):
        part = slice(first, first + at_once)
        transformed[part] = _transform(images[part], parameters[part])
    return transformed


def _transform(images: Tensor, parameters: Tensor) -> Tensor:
    x = images.float().div_(255)
    touched = [(apply, mask.nonzero()[:, 0], column) for apply, mask, column in _steps(parameters) if mask.any()]
    if not touched:
        return x.mul_(2).sub_(1)
    counts = [len(rows) for _, rows, _ in touched]
    all_rows = _upload(torch.cat([rows for _, rows, _ in touched]), x.device).split(counts)
    all_values = _upload(torch.cat([parameters[rows, column] for _, rows, column in touched]), x.device).split(counts)
    for (apply, _, _), rows, values in zip(touched, all_rows, all_values, strict=True):
        if len(rows) == len(x):
            x = apply(x, values[:, None, None, None])
        else:
            x.index_copy_(0, rows, apply(x.index_select(0, rows), values[:, None, None, None]))
    return x.mul_(2).sub_(1)


def _steps(parameters: Tensor) -> Iterator[tuple[Operation, Tensor, int]]:
    """The operations in order of application, with the samples each touches, bool (N,), and its parameter's column."""
    for place in range(JITTERS):
        chosen = parameters[:, Column.ORDER + place]
        for column, operation in enumerate((_brightness, _contrast, _saturation, _hue)):
            yield operation, chosen == column, column
    for operation, column in ((_greyscale, Column.GREYSCALE), (_blur, Column.BLUR_SIGMA), (_solarize, Column.SOLARIZE)):
        yield operation, parameters[:, column] > 0, column


def _upload(values: Tensor, device: torch.device) -> Tensor:
    """`values` on `device`, without waiting for what the device is doing."""
    return values if device.type == "cpu" else values.pin_memory().to(device, non_blocking=True)


# Each operation takes float32 (n, 3, H, W) in [0, 1], which it may overwrite, and its parameter as (n, 1, 1, 1).


def _brightness(x: Tensor, factor: Tensor) -> Tensor:
    return x.mul_(factor).clamp_(0, 1)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    mean = _grey(x).mean(dim=(1, 2, 3), keepdim=True)
    return x.mul_(factor).add_(mean * (1 - factor)).clamp_(0, 1)


def _saturation(x: Tensor, factor: Tensor) -> Tensor:
    grey = _grey(x).mul_(1 - factor)
    return x.mul_(factor).add_(grey).clamp_(0, 1)


def _grey(x: Tensor) -> Tensor:
    """Luma, (n, 1, H, W)."""
    red, green, blue = x.split(1, dim=1)
    return (red * GREY_WEIGHTS[0]).add_(green, alpha=GREY_WEIGHTS[1]).add_(blue, alpha=GREY_WEIGHTS[2])


def _greyscale(x: Tensor, _: Tensor) -> Tensor:
    return x.copy_(_grey(x).expand_as(x))


def _hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift` (1 is the whole circle) at unchanged HSV value and saturation.

    With V the largest channel, C the range of the channels and h the hue in sixths of the circle, channel n (5, 3, 1
    for red, green, blue) is V - C · clamp(min(k, 4 - k), 0, 1), k = (n + h) mod 6 (Smith 1978 in closed form).
    """
    red, green, blue = x.split(1, dim=1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    red_largest = (red == value).float()
    green_largest = (green == value).float().mul_(1 - red_largest)
    blue_largest = 1 - red_largest - green_largest
    sixths = (green - blue).mul_(red_largest)
    sixths.addcmul_(blue - red, green_largest).addcmul_(red - green, blue_largest)
    sixths.div_(chroma.clamp_min(torch.finfo(torch.float32).tiny))
    sixths.add_(green_largest, alpha=2).add_(blue_largest, alpha=4).add_(6 * shift)
    for channel, n in zip((red, green, blue), (5, 3, 1), strict=True):
        k = sixths + n
        k.sub_((k / 6).floor_(), alpha=6)
        share = torch.minimum(k, 4 - k).clamp_(0, 1)
        torch.addcmul(value, chroma, share, value=-1, out=channel)
    return x.clamp_(0, 1)


def _blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Separable Gaussian, reflected at the borders; 13 taps (fewer on images of fewer than 7 pixels)."""
    for dimension in (2, 3):
        x = _blur_along(x, sigma, dimension)
    return x


def _blur_along(x: Tensor, sigma: Tensor, dimension: int) -> Tensor:
    extent = x.shape[dimension]
    radius = min(BLUR_RADIUS, extent - 1)
    offsets = torch.arange(radius + 1, device=x.device)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)  # (n, 1, 1, radius + 1): one side of the kernel
    weights = (weights / (2 * weights.sum(-1, keepdim=True) - 1)).unsqueeze(-1)
    padded = pad(x, (0, 0, radius, radius) if dimension == 2 else (radius, radius, 0, 0), mode="reflect")
    pair = torch.empty_like(x)
    blurred = x.mul_(weights[:, :, :, 0])
    for offset in range(1, radius + 1):
        before, after = (padded.narrow(dimension, radius + side * offset, extent) for side in (-1, 1))
        blurred.addcmul_(torch.add(before, after, out=pair), weights[:, :, :, offset])
    return blurred


def _solarize(x: Tensor, _: Tensor) -> Tensor:
    bright = (x >= SOLARIZE_THRESHOLD).float()
    return x.addcmul_(1 - 2 * x, bright)  # 1 - x to the bit where bright, and faster than torch.where
