"""From what a user points at (run folder, checkpoint folder, weights file) to the weights file that is meant."""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.errors import InvalidInput, RunFailure


@dataclass(frozen=True)
class OwnMetadata:
    """What a weights file of ours says of itself."""

    network: str
    """'online', 'target' or 'model'."""
    recipe: PretrainConfig | FinetuneConfig


def weights_file(path: str | Path, network: str) -> Path:
    """The weights file of `network` ('online', 'target', 'model') at a run folder, a checkpoint folder, or a file.

    Raises `InvalidInput` where there is none, saying what is there.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise InvalidInput(f"there is no {path}: name a run folder, a checkpoint folder or a weights file")
    folder = _newest_checkpoint(path) if (path / "checkpoints").is_dir() else path
    file = folder / f"{network}.safetensors"
    if not file.is_file():
        there = ", ".join(sorted(f.name for f in folder.glob("*.safetensors"))) or "no weights"
        raise InvalidInput(f"{folder} has no {file.name}; it has {there}")
    return file


def _newest_checkpoint(run: Path) -> Path:
    checkpoints = run / "checkpoints"
    pointer = checkpoints / "latest"
    if pointer.is_file() and (checkpoints / pointer.read_text().strip()).is_dir():
        return checkpoints / pointer.read_text().strip()
    finished = sorted(checkpoints.glob("step-*"))
    if not finished:
        raise InvalidInput(f"{run} has no finished checkpoint yet")
    return finished[-1]


def own_metadata(file: Path) -> OwnMetadata | None:
    """The recipe in the metadata of one of our weights files; None for anything else."""
    if file.suffix != ".safetensors":
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise RunFailure(f"{file} cannot be read as weights ({error}); is it damaged?") from error
    if metadata.get("format") != "rrcm-dist":
        return None
    kind = PretrainConfig if metadata["kind"] == "pretrain" else FinetuneConfig
    return OwnMetadata(metadata["network"], kind.model_validate(json.loads(metadata["recipe"])))
