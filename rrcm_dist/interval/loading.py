"""A network of ours that was trained by bounds, from what a user points at."""

from pathlib import Path

import torch

from rrcm_dist.config.ibp import IbpConfig
from rrcm_dist.errors import InvalidInput
from rrcm_dist.interval.networks import IbpNetwork
from rrcm_dist.models.checkpoint_files import own_metadata, weights_file
from rrcm_dist.models.weights import load_into, read_tensors


def load_ibp_classifier(path: str | Path, device: torch.device | str) -> IbpNetwork:
    """The trained network at a run folder, a checkpoint folder or a weights file, in evaluation mode on the device.

    Its `recipe` says what it was trained by. Raises `InvalidInput` for anything but a network of `rrcm train-ibp`,
    `RunFailure` for a damaged file.
    """
    file = weights_file(path, "model")
    metadata = own_metadata(file)
    if metadata is None:
        raise InvalidInput(f"{file} is not a weights file of ours: name a run of `rrcm train-ibp`")
    recipe = metadata.recipe
    if not isinstance(recipe, IbpConfig):
        raise InvalidInput(f"{file} is of a {recipe.kind} run, not of `rrcm train-ibp`: no bounds go through it")
    network = IbpNetwork(recipe.network, recipe.classes, recipe.seed)
    load_into(network, read_tensors(file), str(file))
    network.recipe = recipe
    return network.requires_grad_(False).eval().to(device)
