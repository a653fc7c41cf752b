"""Where a network to verify comes from, and whether it fits the images."""

from dataclasses import dataclass

import torch
from torch import nn

from rrcm_dist.certification.workers.calling import call_classifier
from rrcm_dist.certification.workers.classifiers import call_function, weights_hash
from rrcm_dist.config.verify import VerifyConfig
from rrcm_dist.errors import InvalidInput
from rrcm_dist.interval.images import network_pixels
from rrcm_dist.interval.loading import load_ibp_classifier
from rrcm_dist.interval.networks import IbpNetwork
from rrcm_dist.interval.verification import require_verifiable


@dataclass(frozen=True)
class NetworkToVerify:
    """A network on the CPU, and what is known of it."""

    network: nn.Module
    channels: int
    """Of its images: 1 or 3."""
    weights: str
    """SHA-256 of its weights."""


def network_of(config: VerifyConfig) -> NetworkToVerify:
    """The recipe's network, in evaluation mode.

    Raises `InvalidInput` for a checkpoint of another kind and, naming it, for a layer that no bounds are known for.
    """
    if config.function is not None:
        network, channels = call_function(config.function, 0.0), 3
    else:
        assert config.checkpoint is not None, "the recipe's type gives one of the two"
        network = load_ibp_classifier(config.checkpoint, "cpu")
        channels = _channels(network, config)
    network.eval()
    try:
        require_verifiable(network)
    except InvalidInput as error:
        raise InvalidInput(f"{config.source}: {error}") from None
    return NetworkToVerify(network, channels, weights_hash(network))


def check_outputs(found: NetworkToVerify, config: VerifyConfig, classes: int) -> None:
    """Raise `InvalidInput` where the network tells another number of classes apart than the dataset has, and
    `RunFailure` where it cannot take images of that size."""
    blank = torch.zeros(1, 3, config.image_size, config.image_size, dtype=torch.uint8)
    with torch.no_grad():
        images = network_pixels(blank, found.channels, torch.device("cpu"))
        logits = call_classifier(found.network, images, config.source, "a blank image")
    if logits.shape[1] != classes:
        raise InvalidInput(
            f"the network {config.source} tells {logits.shape[1]} classes apart, and the dataset has {classes}: verify "
            "on the dataset that it was trained for"
        )


def _channels(network: IbpNetwork, config: VerifyConfig) -> int:
    assert network.recipe is not None, "it was read from a file"
    trained = network.recipe.network
    if trained.image_size != config.image_size:
        raise InvalidInput(
            f"checkpoint {config.checkpoint} was trained at image_size {trained.image_size}, not {config.image_size}: "
            f"verify with image_size={trained.image_size}"
        )
    return trained.channels
