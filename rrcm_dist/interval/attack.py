"""Projected gradient descent (Madry et al. 2018) on the margin: what a certificate must never exceed."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rrcm_dist.errors import InvalidInput
from rrcm_dist.interval.bounds import pixel_box, require_epsilon
from rrcm_dist.interval.margins import least_margin
from rrcm_dist.interval.verification import evaluation_mode, require_pixels, whole_float32
from rrcm_dist.random_streams import Purpose, numpy_generator

STEP_SHARE = 2.5
"""A step is this times ε / steps: enough to cross the ball, and to come back."""


def pgd_margins(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    steps: int,
    restarts: int,
    seeds: Sequence[int],
) -> Tensor:
    """The least margin min_{j≠y}(z_y - z_j) found in each image's ℓ∞ ball, clipped to [0, 1].

    The clean image counts, and every point on the way of every restart. Restarts begin at uniformly random points of
    the ball, drawn for each image from a stream of its own, so that batches do not change them.

    Args:
        network: any classifier of [0, 1] pixels; in evaluation mode for the time of the call.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64, y.
        epsilon: ℓ∞ radius on [0, 1] pixels, 0 to 1.
        steps: gradient steps of a restart.
        restarts: how many; 0 looks at the clean image alone.
        seeds: N of them, each the name of its image's stream.

    Returns:
        (N,) float32. Never below a true lower bound, but for rounding.
    """
    require_pixels(images)
    require_epsilon(epsilon)
    if len(seeds) != len(images):
        raise InvalidInput(f"{len(seeds)} seeds for {len(images)} images: give each image one")
    box = pixel_box(images, epsilon)
    with evaluation_mode(network), whole_float32(images.device):
        with torch.no_grad():
            least = least_margin(_margins(network(images), labels), labels)
        for restart in range(restarts):
            points = box.lower + _uniform(images, seeds, restart) * (2 * box.radius)
            for _ in range(steps):
                margins, gradient = _margins_and_gradient(network, points, labels)
                least = torch.minimum(least, margins)
                moved = points - STEP_SHARE * epsilon / steps * gradient.sign()
                points = torch.minimum(torch.maximum(moved, box.lower), box.upper).clamp(0, 1)
            with torch.no_grad():
                least = torch.minimum(least, least_margin(_margins(network(points), labels), labels))
    return least


def _margins(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None]) - logits


def _margins_and_gradient(network: nn.Module, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Least margins (N,) and their gradient in the images; the network's own gradients are left alone."""
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        margins = least_margin(_margins(network(points), labels), labels)
        (gradient,) = torch.autograd.grad(margins.sum(), points)
    return margins.detach(), gradient


def _uniform(images: Tensor, seeds: Sequence[int], restart: int) -> Tensor:
    """Uniform [0, 1) numbers of the images' shape, float32, the same on every device."""
    streams = [numpy_generator(Purpose.ATTACK, int(seed), restart) for seed in seeds]
    drawn = [torch.from_numpy(stream.random(images.shape[1:], dtype="float32")) for stream in streams]
    return torch.stack(drawn).to(images.device) if drawn else images
