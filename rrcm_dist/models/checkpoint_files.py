"""From what a user points at (run folder, checkpoint folder, weights file) to the weights file that is meant.

A checkpoint folder holds `manifest.json`, with size and SHA-256 of every other file: what disagrees with it is damaged.
`training.checkpointing` writes them.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from rrcm_dist.config.keys import TRAINED, TrainingRecipe
from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.files import sha256

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT = "rrcm-dist"
"""Marks our weights files in their metadata."""


@dataclass(frozen=True)
class OwnMetadata:
    """What a weights file of ours says of itself."""

    network: str
    """'online', 'target', 'average-0.999' or the like, or 'model'."""
    recipe: TrainingRecipe

    def as_strings(self) -> dict[str, str]:
        """As `write_weights` stores it."""
        recipe = self.recipe
        return {"format": FORMAT, "kind": recipe.kind, "recipe": recipe.model_dump_json(), "network": self.network}


@dataclass(frozen=True)
class RRCMMetadata(OwnMetadata):
    """Of a network that is conditioned on a noise level: of pre-training or fine-tuning."""

    recipe: PretrainConfig | FinetuneConfig


def weights_file(path: str | Path, network: str) -> Path:
    """The weights file of `network` ('online', 'target', 'model') at a run folder, a checkpoint folder, or a file.

    Raises `InvalidInput` where there is none, saying what is there.
    """
    path = Path(path)
    if path.is_file():
        return path
    found = weights_files(path)
    for file in found:
        if file.stem == network:
            return file
    hint = ": it is a pre-training run, fine-tune it first" if network == "model" else ""
    there = ", ".join(f.name for f in found)
    raise InvalidInput(f"{found[0].parent} has no {network}.safetensors; it has {there}{hint}")


def weights_files(path: str | Path) -> list[Path]:
    """All weights files of a checkpoint folder, or of a run folder's newest checkpoint; at least one.

    Raises `InvalidInput` where there is none.
    """
    path = Path(path)
    if not path.is_dir():
        raise InvalidInput(f"there is no {path}: name a run folder, a checkpoint folder or a weights file")
    folder = _newest_checkpoint(path) if (path / "checkpoints").is_dir() else path
    listed = _listed(folder)
    found = sorted(file for file in folder.glob("*.safetensors") if listed is None or file.name in listed)
    if not found:
        raise InvalidInput(f"{folder} has no weights: name a run folder, a checkpoint folder or a weights file")
    return found


def chosen_weights(checkpoint: Path, network: str | None) -> Path:
    """As `weights_file`, but None takes the only network there is, and a file of ours must hold the one that is named.

    Raises `InvalidInput` where there is none such, or more than one.
    """
    if network is None and not checkpoint.is_file():
        found = weights_files(checkpoint)
        if len(found) > 1:
            *names, last = (file.stem for file in found)
            raise InvalidInput(f"{checkpoint} holds {', '.join(names)} and {last}: choose one by --network")
        return found[0]
    file = weights_file(checkpoint, network or "")
    metadata = own_metadata(file)
    if network is not None and metadata is not None and metadata.network != network:
        raise InvalidInput(f"{file} holds the {metadata.network} network, not the {network} one")
    return file


def _listed(folder: Path) -> set[str] | None:
    """Files that a checkpoint's manifest names: what else lies there is not of it; None where there is no manifest."""
    try:
        return set(json.loads((folder / MANIFEST).read_text())["files"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFailure(f"{folder / MANIFEST} cannot be read ({error}): use another checkpoint") from error


def _newest_checkpoint(run: Path) -> Path:
    found = newest_undamaged(run / "checkpoints", networks_only=True)
    if found is None:
        raise InvalidInput(f"{run} has no finished checkpoint yet")
    return found


def newest_undamaged(checkpoints: Path, networks_only: bool = False) -> Path | None:
    """The newest checkpoint whose files, or whose networks, are whole; None where there is no checkpoint.

    Damaged ones are named in a warning. Raises `RunFailure` where all are damaged.
    """
    candidates = sorted(checkpoints.glob("step-*"), reverse=True)
    for candidate in candidates:
        problem = damage(candidate, networks_only)
        if not problem:
            return candidate
        log.warning("checkpoint %s is damaged (%s); using the one before it", candidate, problem)
    if candidates:
        raise RunFailure(f"every checkpoint in {checkpoints} is damaged: move them away to start afresh")
    return None


def damage(checkpoint: Path, networks_only: bool = False) -> str:
    """What is wrong with a checkpoint's files, or its networks alone, by its manifest; empty if they are whole."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text())["files"]
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is missing or unreadable"
    for name, (size, checksum) in expected.items():
        file = checkpoint / name
        if networks_only and "/" in name:
            continue  # what only resuming needs lies in a folder
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
        if sha256(file) != checksum:
            return f"{name} does not match its checksum"
    return ""


def own_metadata(file: Path) -> OwnMetadata | None:
    """The recipe in the metadata of one of our weights files; None for anything else."""
    if file.suffix != ".safetensors":
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise RunFailure(f"{file} cannot be read as weights ({error}); is it damaged?") from error
    if metadata.get("format") != FORMAT:
        return None
    try:
        kind = TRAINED[metadata["kind"]]
        return OwnMetadata(metadata["network"], kind.model_validate_json(metadata["recipe"]))
    except (KeyError, ValidationError) as error:
        raise RunFailure(f"{file} holds no recipe that this version can read: {error}") from error


def require_own(file: Path) -> RRCMMetadata:
    """As `own_metadata`, but raises `InvalidInput` for a file that is not ours, or not of an rRCM network."""
    metadata = own_metadata(file)
    if metadata is None:
        raise InvalidInput(f"{file} is not a weights file of ours: `rrcm import` makes one of released weights")
    if not isinstance(metadata.recipe, PretrainConfig | FinetuneConfig):
        raise InvalidInput(
            f"{file} is of a {metadata.recipe.kind} run, whose network takes no noise level: `rrcm verify` is for it"
        )
    return RRCMMetadata(metadata.network, metadata.recipe)
