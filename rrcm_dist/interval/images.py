"""From decoded images, always of three channels, to the pixels that a network sees."""

import torch
from torch import Tensor

from rrcm_dist.errors import InvalidInput


def network_pixels(images: Tensor, channels: int, device: torch.device) -> Tensor:
    """uint8 (N, 3, H, W) on the CPU → float32 (N, channels, H, W) in [0, 1] on the device.

    With 1 channel images must be grey, so that nothing is lost; else `InvalidInput`.
    """
    if channels == 1:
        first = images[:, :1]
        if not (images == first).all():
            raise InvalidInput("network.channels is 1, but there are images with colours: set network.channels=3")
        images = first
    return images.to(device, non_blocking=True).float().div_(255)
