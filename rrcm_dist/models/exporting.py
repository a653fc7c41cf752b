"""Networks for use without this project: plain safetensors, or a program that torch alone runs."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rrcm_dist.config.schema import FinetuneConfig
from rrcm_dist.errors import RunFailure
from rrcm_dist.files import whole_file
from rrcm_dist.models.checkpoint_files import require_own
from rrcm_dist.models.classifier import NoisyPixelClassifier
from rrcm_dist.models.rebuilding import trained_network
from rrcm_dist.models.representation import Representation
from rrcm_dist.models.weights import read_weights, write_weights
from rrcm_dist.noise import conditioning_level

DESCRIPTION = "rrcm-dist.json"
"""Extra file within a .pt2: network, recipe, input and output in words."""
TRACED_BATCH, CHECKED_BATCHES = 2, (1, 5)
LARGEST_DIFFERENCE = 1e-5
"""Of the program's outputs from the network's, relative to the largest output."""


@dataclass(frozen=True)
class Program:
    """What a .pt2 takes and gives, in words."""

    takes: str
    gives: str


def export_safetensors(file: Path, output: Path, encoder_only: bool = False) -> None:
    """Write the tensors of a weights file of ours to `output`, with recipe and network in its metadata.

    `encoder_only` leaves out a projector or a head. Raises `InvalidInput` where the file is not ours.
    """
    metadata, tensors = require_own(file), read_weights(file).tensors
    if encoder_only:
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith("encoder.")}
    write_weights(output, tensors, metadata.as_strings())


def export_program(file: Path, output: Path, device: torch.device, encoder_only: bool = False) -> Program:
    """Write a .pt2 that `torch.export.load(path).module()` turns into a module without this project, any batch size.

    A fine-tuned network becomes a classifier of noisy [0, 1] pixels (N, 3, H, W) → logits (N, classes); an encoder,
    pre-trained or asked for by `encoder_only`, maps noisy [-1, 1] images and noise levels t (N,) to representations
    (N, width). All float32. The program is for `device` alone, and is compared with the network before it is kept.
    Raises `InvalidInput` where the file is not ours, and `RunFailure` where the numbers differ.
    """
    trained, recipe = trained_network(file)
    size = recipe.encoder.image_size
    module: nn.Module
    if isinstance(recipe, FinetuneConfig) and not encoder_only:
        module = NoisyPixelClassifier(trained, conditioning_level(recipe.noise, recipe.sigma))
        takes = f"(N, 3, {size}, {size}) float32, [0, 1] pixels plus noise of standard deviation {recipe.sigma:g}"
        gives = f"(N, {recipe.classes}) float32 logits"
    else:
        module = Representation(trained)
        takes = f"(N, 3, {size}, {size}) float32, [-1, 1] pixels plus noise of standard deviation t; (N,) float32 t"
        gives = f"(N, {recipe.encoder.width}) float32 representations"
    module = module.to(device).eval().requires_grad_(False)
    about = {"recipe": recipe.model_dump(mode="json"), "takes": takes, "gives": gives, "device": device.type}
    traced = _traced(module, size, device)
    # Into memory first: torch's own writer aborts the process where the disk is full.
    buffer = io.BytesIO()
    torch.export.save(traced, buffer, extra_files={DESCRIPTION: json.dumps(about)})
    with whole_file(output) as aside:
        aside.write_bytes(buffer.getbuffer())
        _compare(module, aside, size, device)
    return Program(takes, gives)


def _traced(module: nn.Module, size: int, device: torch.device) -> torch.export.ExportedProgram:
    """The module as a program for any number of images."""
    batch = torch.export.Dim("batch", min=1)
    inputs = _inputs(module, TRACED_BATCH, size, device)
    with torch.no_grad():
        return torch.export.export(module, inputs, dynamic_shapes=({0: batch},) * len(inputs), strict=False)


def _compare(module: nn.Module, file: Path, size: int, device: torch.device) -> None:
    """Raise `RunFailure` unless the program in `file` gives the module's numbers at other batch sizes than traced."""
    with open(file, "rb") as opened:
        program = torch.export.load(opened).module()
    for count in CHECKED_BATCHES:
        inputs = _inputs(module, count, size, device)
        with torch.no_grad():
            expected, actual = module(*inputs), program(*inputs)
        difference = float((actual - expected).abs().max() / expected.abs().max())
        if not difference <= LARGEST_DIFFERENCE:
            raise RunFailure(
                f"the exported program differs from the network by {difference:.1e} on {count} images (torch "
                f"{torch.__version__}); nothing was written: export as safetensors, or with another torch"
            )


def _inputs(module: nn.Module, count: int, size: int, device: torch.device) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(count)
    noisy = torch.randn(count, 3, size, size, generator=generator).to(device)
    return (noisy,) if isinstance(module, NoisyPixelClassifier) else (noisy, torch.full((count,), 0.5, device=device))
