"""Lower bounds of the margins z_y - z_j, the matrix of differences merged into the last linear layer.

The bound of a difference of two logits is tighter than the difference of their bounds: the two share the last layer's
input (Gowal et al. 2018, section 3).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrcm_dist.errors import InvalidInput
from rrcm_dist.interval.bounds import Box
from rrcm_dist.interval.propagation import flattened


def body_and_head(network: nn.Module) -> tuple[list[tuple[str, nn.Module]], nn.Linear]:
    """Layers of a network before its last one, by dotted name, and the last one.

    Raises `InvalidInput` where that is not linear.
    """
    *body, (name, head) = flattened(network)
    if type(head) is not nn.Linear:
        raise InvalidInput(
            f"the last layer {name or '(the network itself)'} is {type(head).__name__}: margins are bounded through a "
            "last nn.Linear that gives the logits, so a network must be an nn.Sequential that ends in one"
        )
    return body, head


def margin_lower_bounds(head: nn.Linear, features: Box, labels: Tensor) -> Tensor:
    """Lower bounds of z_y - z_j over all features in a box.

    Args:
        head: the last layer, features (N, D) → logits (N, K).
        features: the box of its input, (N, D).
        labels: (N,) int64, y.

    Returns:
        (N, K) float32, 0 at j = y.
    """
    differences = head.weight[labels][:, None] - head.weight  # (N, K, D)
    bound = torch.einsum("nkd,nd->nk", differences, features.centre)
    bound = bound - torch.einsum("nkd,nd->nk", differences.abs(), features.radius)
    if head.bias is not None:
        bound = bound + head.bias[labels][:, None] - head.bias
    return bound


def least_margin(margins: Tensor, labels: Tensor) -> Tensor:
    """(N, K) margins z_y - z_j → (N,) least over j ≠ y."""
    own = F.one_hot(labels, margins.shape[1]).bool()
    return margins.masked_fill(own, float("inf")).amin(dim=1)


def margin_cross_entropy(margins: Tensor, labels: Tensor) -> Tensor:
    """Mean over images of the cross-entropy of the worst logits z_j - z_y = -margin; (N, K) and (N,) → scalar."""
    return F.cross_entropy(-margins, labels)
