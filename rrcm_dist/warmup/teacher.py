"""A frozen teacher whose patch tokens lie on the student's grid, whatever network it is."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rrcm_dist.config.parts import EncoderConfig
from rrcm_dist.config.representation_warmup import TeacherConfig
from rrcm_dist.config.warmup_costs import TeacherCost
from rrcm_dist.errors import InvalidInput
from rrcm_dist.models.rrcm import autocast
from rrcm_dist.warmup.own_teacher import OwnTokens
from rrcm_dist.warmup.timm_teacher import TimmTokens

CHANNELS = 3


class Teacher:
    """Clean [-1, 1] images → the teacher's patch tokens, one for each patch of the student. It never learns."""

    def __init__(self, network: TimmTokens | OwnTokens, name: str, grid: int) -> None:
        """`network` at its own input size; raises `InvalidInput` where its tokens are not `grid` by `grid`."""
        self._network = network.requires_grad_(False).eval()
        self._precision = "fp32"
        self.cost = _probed(network, name, grid)

    def to(self, device: torch.device, precision: str) -> "Teacher":
        """Itself, on the device and in the precision of a run."""
        self._network.to(device)
        self._precision = precision
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(n, 3, H, W) float32 pixels in [-1, 1], without noise → (n, patches, width) float32, row-major patches."""
        size = self._network.input_size
        if images.shape[-1] != size:
            mode = self._network.interpolation
            images = F.interpolate(images, (size, size), mode=mode, antialias=True, align_corners=False).clamp_(-1, 1)
        with autocast(self._precision, images.device):
            tokens: Tensor = self._network(images)
        return tokens.flatten(1, 2).float()


def load_teacher(config: TeacherConfig, student: EncoderConfig) -> Teacher:
    """The teacher that a recipe names, at the input size at which its tokens match the student's, on the CPU.

    Raises `InvalidInput` where there is none such, its weights are of another architecture, or no input size brings
    its tokens to the student's grid; `RunFailure` where a file is damaged. Every rank reads it for itself.
    """
    grid = student.image_size // student.patch
    path = Path(config.weights)
    if not path.exists():
        raise InvalidInput(
            f"additions.representation_warmup.teacher.weights: there is no {path}; nothing is downloaded"
        )
    if config.model is None and not (path / "config.json").is_file():
        return Teacher(OwnTokens.read(path, config.network), str(path), grid)
    return Teacher(TimmTokens.read(path, config.model, grid), config.model or str(path), grid)


def _probed(network: TimmTokens | OwnTokens, name: str, grid: int) -> TeacherCost:
    """What one image costs, once the tokens of a black one are seen to be on the student's grid."""
    size = network.input_size
    black = torch.full((1, CHANNELS, size, size), -1.0)
    counter = FlopCounterMode(display=False)
    # Attention as plain products, which are counted alike on every machine.
    with _in_words(name, size, grid), torch.no_grad(), counter, sdpa_kernel(SDPBackend.MATH):
        tokens = network(black)
    rows, columns, width = tokens.shape[1:]
    if (rows, columns) != (grid, grid):
        raise InvalidInput(
            f"the teacher {name} gives {rows} × {columns} tokens of {size} × {size} pixels, and the student has "
            f"{grid} × {grid} patches, which no input size of this teacher mends: name another teacher, or change "
            "encoder.patch"
        )
    return TeacherCost(
        parameters=_parameters(network), flops=float(counter.get_total_flops()), width=width, input_size=size
    )


@contextlib.contextmanager
def _in_words(name: str, size: int, grid: int) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
        raise InvalidInput(
            f"the teacher {name} gives no tokens of {size} × {size} pixels, where they would match the student's "
            f"{grid} × {grid} patches ({error}): name another teacher, or change encoder.patch"
        ) from error


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
