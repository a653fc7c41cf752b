"""Weights in and out: the released names, our names, safetensors.

Ours are `encoder.…`, `projector.…` and `head.…`; within the encoder they equal the released ones.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.files import require_free_space, whole_file

RELEASED_PREFIXES = {"projection_head.": "projector.", "base_model.": "encoder.", "linear_head.": "head."}
WRAPPER = "module."
"""What data-parallel wrappers put before every name."""
SHOWN_NAMES = 8


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current


_UMASK = _umask()
"""Asked for once: to ask is to change it for a moment, for files of other threads, too."""


@dataclass(frozen=True)
class NamedWeights:
    """Tensors under our names, and where each came from."""

    tensors: dict[str, Tensor]
    sources: dict[str, str]
    """our name → name in the file"""


def from_released_names(released: Mapping[str, Tensor]) -> NamedWeights:
    """Weights under the released names (pre-trained or fine-tuned, with or without `module.`) → under ours."""
    tensors: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    for name, tensor in released.items():
        own = our_name(name)
        if own in tensors:
            raise InvalidInput(f"the weights name {own} twice: as {sources[own]} and as {name}")
        tensors[own], sources[own] = tensor, name
    return NamedWeights(tensors, sources)


def our_name(released: str) -> str:
    """Our name of a released parameter; a name that is ours already is returned as it is."""
    bare = released.removeprefix(WRAPPER)
    if bare.startswith(("encoder.", "projector.", "head.")):
        return bare
    bare = bare.removeprefix("base_model.").removeprefix(WRAPPER) if bare.startswith("base_model.") else bare
    for prefix in ("projection_head.", "linear_head."):
        if bare.startswith(prefix):
            return RELEASED_PREFIXES[prefix] + bare.removeprefix(prefix)
    return "encoder." + bare


def read_weights(path: str | Path) -> NamedWeights:
    """Read a weights file: safetensors, or a torch file (.pth, .pt, .net) of a state dict. No code in it is run.

    Raises `InvalidInput` where there is no such file and `RunFailure` where it cannot be read as weights.
    """
    return from_released_names(read_named_tensors(path))


def read_named_tensors(path: str | Path) -> dict[str, Tensor]:
    """As `read_weights`, by the names that the tensors have in the file."""
    path = Path(path)
    if path.suffix == ".safetensors":
        return read_tensors(path)
    _require_file(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, KeyError, ValueError) as error:
        raise RunFailure(f"{path} cannot be read as weights ({error}); is it damaged or of another kind?") from error
    except Exception as error:  # torch raises pickle's own errors, whose classes are not public
        raise RunFailure(f"{path} is no weights file that can be read safely") from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)} if state else {}
    if not tensors:
        there = f"its keys are {', '.join(map(str, list(loaded)[:8]))}" if isinstance(loaded, dict) else "it has none"
        raise RunFailure(f"{path} holds no tensors by name, as a state dict does: {there}")
    return tensors


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by the names they have there, on the CPU; else as `read_weights`."""
    path = Path(path)
    _require_file(path)
    try:
        return load_file(path)
    except (SafetensorError, RuntimeError, OSError, ValueError) as error:
        raise RunFailure(f"{path} cannot be read as weights ({error}); is it damaged or of another kind?") from error


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise InvalidInput(f"there is no weights file {path}" + (": it is a folder" if path.is_dir() else ""))


def write_weights(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors with string metadata; the file appears whole."""
    contiguous = {name: _alone(tensor.detach().cpu().contiguous()) for name, tensor in tensors.items()}
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in contiguous.values())
    require_free_space(Path(path).parent, size_bytes, str(path))
    with whole_file(path) as aside:
        try:
            save_file(contiguous, aside, dict(metadata))
        except SafetensorError as error:
            raise RunFailure(f"{path} was not written ({error}): make room and run again") from error
        aside.chmod(0o666 & ~_UMASK)  # safetensors lets nobody else read what it writes


def _alone(tensor: Tensor) -> Tensor:
    """The tensor, copied where its memory is a part of another's, which safetensors refuses."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


@dataclass(frozen=True)
class LoadReport:
    """What became of every key when weights met a network."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    """the network has it, the weights do not: kept as it was initialised"""
    unused: tuple[str, ...]
    """the weights have it, the network does not"""

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded"]
        for what, names in (("kept as initialised", self.missing), ("not used", self.unused)):
            if names:
                lines.append(f"{len(names)} {what}: {', '.join(names)}")
        return "; ".join(lines)


def load_into(
    network: nn.Module, weights: Mapping[str, Tensor], origin: str, required: str | tuple[str, ...] = ""
) -> LoadReport:
    """Copy weights into a network by name.

    Args:
        network: its state dict bears our names.
        weights: under our names.
        origin: where they are from, for messages.
        required: names with this prefix, or one of these, must be there; unless said otherwise, all.

    Raises `InvalidInput` naming every tensor of another shape and every required one that is missing; the network is
    then left as it was.
    """
    own = network.state_dict()
    wrong = [
        f"{name}: {tuple(weights[name].shape)} there, {tuple(tensor.shape)} here"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if wrong:
        raise InvalidInput("\n  ".join([f"{origin} is of another shape than the recipe's network:", *wrong]))
    missing = tuple(name for name in own if name not in weights)
    absent = [name for name in missing if name.startswith(required)]
    if absent:
        more = f" and {len(absent) - SHOWN_NAMES} more" if len(absent) > SHOWN_NAMES else ""
        raise InvalidInput(f"{origin} lacks tensors that are needed: {', '.join(absent[:SHOWN_NAMES])}{more}")
    network.load_state_dict({name: weights[name] for name in own if name in weights}, strict=False)
    unused = tuple(name for name in weights if name not in own)
    return LoadReport(tuple(name for name in own if name in weights), missing, unused)
