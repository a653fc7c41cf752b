"""The released code's numbers, loaded once."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch

from rrcm_dist.config.parts import EncoderConfig, NoiseConfig, ProjectorConfig
from rrcm_dist.models.rrcm import PretrainingNetwork
from rrcm_dist.models.weights import from_released_names

HERE = Path(__file__).parent
ENCODER = EncoderConfig(image_size=16, patch=4, width=48, depth=2, heads=3)
PROJECTOR = ProjectorConfig(hidden=32, output=24)


@cache
def arrays() -> dict[str, torch.Tensor]:
    with np.load(HERE / "rrcm_reference.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@cache
def facts() -> dict:
    return json.loads((HERE / "rrcm_reference.json").read_text())


def network(which: str) -> PretrainingNetwork:
    """The reference's 'online' or 'target' network, in train mode."""
    prefix = which + "/"
    released = {name.removeprefix(prefix): array for name, array in arrays().items() if name.startswith(prefix)}
    built = PretrainingNetwork(ENCODER, PROJECTOR, NoiseConfig(), seed=0)
    built.load_state_dict(from_released_names(released).tensors)
    return built
