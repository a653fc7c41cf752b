"""Small networks for tests of bounds: weights and batch statistics of a size that leaves no layer without effect."""

import torch
from torch import nn

from rrcm_dist.config.ibp import IbpNetworkConfig
from rrcm_dist.interval.networks import IbpNetwork

CONFIGS = {
    "cnn7": IbpNetworkConfig(kind="cnn7", image_size=6, channels=1, width=2, hidden=5, mean=(0.3,), std=(0.5,)),
    "wide_resnet": IbpNetworkConfig(kind="wide_resnet", image_size=6, channels=3, width=2, hidden=5, stem=2, blocks=2),
    "resnext": IbpNetworkConfig(kind="resnext", image_size=6, channels=1, width=2, hidden=5, stem=2),
}


def lived_in(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in evaluation mode, its batch norms as after a training that has moved every number."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data.normal_(0, 1.5 / module.weight[0].numel() ** 0.5, generator=generator)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, -1.5, 1.5),
                (module.bias, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.2, 2.0),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    return network.eval()


def small_network(kind: str, classes: int = 4) -> IbpNetwork:
    network = lived_in(IbpNetwork(CONFIGS[kind], classes))
    assert isinstance(network, IbpNetwork)
    return network


def images_and_labels(kind: str, count: int = 3, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    size = CONFIGS[kind].image_size
    images = torch.rand(count, CONFIGS[kind].channels, size, size, generator=generator)
    return images, torch.arange(count) % classes
