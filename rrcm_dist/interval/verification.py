"""The certificate: what the margin cannot fall below in an ℓ∞ ball. Deterministic; no draw, no probability."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rrcm_dist.errors import InvalidInput
from rrcm_dist.interval.bounds import Signal, pixel_box, require_epsilon
from rrcm_dist.interval.margins import body_and_head, least_margin, margin_lower_bounds
from rrcm_dist.interval.networks import IbpNetwork
from rrcm_dist.interval.propagation import propagate, require_bounds


@torch.no_grad()
def verified_margins(network: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """Lower bounds of the least margin min_{j≠y}(z_y - z_j) over the ℓ∞ ball of each image, clipped to [0, 1].

    Above 0 no image within ε is classified otherwise than y. Bounds are computed in float32 without directed rounding,
    as is usual: those within rounding (about 1e-6 of the logits) of 0 prove nothing.

    Args:
        network: one of ours, or an nn.Sequential of layers with bounds that ends in an nn.Linear; in evaluation mode
            for the time of the call.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64, y.
        epsilon: ℓ∞ radius on [0, 1] pixels, 0 to 1.

    Returns:
        (N,) float32.

    Raises `InvalidInput` for a layer without bounds, an ε or pixels out of range.
    """
    require_verifiable(network)
    require_pixels(images)
    require_epsilon(epsilon)
    body, head = body_and_head(layers_of(network))
    with evaluation_mode(network), whole_float32(images.device):
        signal = Signal(box=pixel_box(images, epsilon))
        for name, layer in body:
            signal = propagate(layer, signal, name)
        assert signal.box is not None
        return least_margin(margin_lower_bounds(head, signal.box, labels), labels)


def require_verifiable(network: nn.Module) -> None:
    """Raise `InvalidInput` naming the first layer that no bounds are known for, or a module that computes more than
    its class says: by forward hooks, or by a `forward` of its own. It is looked at in evaluation mode."""
    for place, module in network.named_modules():
        _require_plain(module, place)
    body, head = body_and_head(layers_of(network))
    with evaluation_mode(network):
        for name, layer in (*body, ("last", head)):
            require_bounds(layer, name)


def require_pixels(images: Tensor) -> None:
    """Raise `InvalidInput` unless they are float images (N, C, H, W) of [0, 1] pixels."""
    if images.ndim != 4 or not images.is_floating_point():
        raise InvalidInput(f"images are {images.dtype} {tuple(images.shape)}; they must be float (N, C, H, W)")
    if len(images) and not (images.amin() >= 0 and images.amax() <= 1):
        raise InvalidInput("images must have pixels in [0, 1]: normalisation is a layer of the network")


def layers_of(network: nn.Module) -> nn.Module:
    """The layers of one of our networks; another network is what it is."""
    return network.layers if type(network) is IbpNetwork else network


def _require_plain(module: nn.Module, place: str) -> None:
    if module._forward_hooks or module._forward_pre_hooks:
        own = "forward hooks"
    elif "forward" in module.__dict__:
        own = "a forward of its own"
    else:
        return
    raise InvalidInput(
        f"{type(module).__name__}, layer {place or '(the network itself)'}, has {own}: what it computes may be "
        "something else than its class says, and bounds do not see that; remove it"
    )


@contextmanager
def whole_float32(device: torch.device) -> Iterator[None]:
    """Within, no convolution or product of float32 numbers is done in fewer bits: neither autocast nor TF32.

    cuDNN's convolutions would else keep ten bits of each factor, and a bound would be off by a thousandth.
    """
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Within, the network is in evaluation mode; afterwards in the modes that its modules were in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
