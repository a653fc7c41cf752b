"""Checkpoints that appear whole and know when they are damaged.

    checkpoints/latest              name of the newest checkpoint
    checkpoints/step-000005000/
        manifest.json               step, samples_seen, ranks, ZeRO stage, and SHA-256 and size of every other file
        online.safetensors, target.safetensors   (pre-training)   whole weights under our names, recipe in the metadata
        model.safetensors                        (fine-tuning)
        deepspeed/                  parameters and optimiser state, for resuming

A checkpoint is written aside, its manifest last, flushed, and renamed. A folder whose files disagree with its manifest
is damaged: it is passed over, said aloud, and the one before it is used.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.distributed.collectives import agree, own_rank, wait_for_all
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.files import PARTIAL, disk_failure, flush, require_free_space, sha256, write_text
from rrcm_dist.models.checkpoint_files import OwnMetadata
from rrcm_dist.models.weights import write_weights
from rrcm_dist.training.engine import Engine

LATEST = "latest"
MANIFEST = "manifest.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a run has come, and on what."""

    step: int
    samples_seen: int
    ranks: int
    zero_stage: int
    finished: bool = False


def checkpoint_name(step: int) -> str:
    """Folder name of a step's checkpoint; names sort by step."""
    return f"step-{step:09d}"


def save_checkpoint(
    folder: Path,
    engine: Engine,
    weights: Mapping[str, Mapping[str, Tensor]],
    recipe: PretrainConfig | FinetuneConfig,
    progress: Progress,
    keep: int,
    world: World,
) -> Path:
    """Write a checkpoint; every rank must call it. Returns its folder, which exists whole or not at all.

    Args:
        folder: the run's `checkpoints/`, visible to every rank.
        engine: its state is written.
        weights: file stem → tensors, written as safetensors by the main rank.
        recipe: goes into the weights' metadata.
        progress: of the run after this step.
        keep: the newest so many stay.
        world: this rank's place.
    """
    final = folder / checkpoint_name(progress.step)
    aside = folder / f".{final.name}{PARTIAL}"
    problem = ""
    if world.is_main:
        try:
            _prepare(folder, aside, weights)
        except (OSError, RunFailure) as error:
            problem = str(disk_failure(error, final) if isinstance(error, OSError) else error)
    _raise_together(problem)
    try:
        engine.save_state(aside)
        if world.is_main:
            _write_weights(aside, weights, recipe)
            _finish(aside, final, progress)
            write_text(folder / LATEST, final.name + "\n")
            _prune(folder, keep)
    except (OSError, RunFailure, RuntimeError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, RunFailure):
            raise
        # torch reports a full disk as a RuntimeError of its file writer
        raise (
            disk_failure(error, final)
            if isinstance(error, OSError)
            else RunFailure(f"checkpoint {final} was not written ({error}); the ones before it are untouched")
        ) from error
    wait_for_all()
    return final


def find_checkpoint(folder: Path) -> tuple[Path, Progress] | None:
    """The newest undamaged checkpoint and its progress, the same on every rank; None where there is none at all.

    Damaged ones are named in a warning. Raises `RunFailure` where all are damaged.
    """
    found, problem = agree(_newest_undamaged(folder) if own_rank() == 0 else None)
    if problem:
        raise RunFailure(problem)
    return found


def _newest_undamaged(folder: Path) -> tuple[tuple[Path, Progress] | None, str]:
    """What was found, or what to say instead."""
    candidates = sorted(folder.glob("step-*"), reverse=True)
    for candidate in candidates:
        problem = damage(candidate)
        if not problem:
            return (candidate, read_progress(candidate)), ""
        log.warning("checkpoint %s is damaged (%s); using the one before it", candidate, problem)
    if candidates:
        return None, f"every checkpoint in {folder} is damaged: move them away to start afresh"
    return None, ""


def damage(checkpoint: Path) -> str:
    """What is wrong with a checkpoint, by its manifest; empty if it is whole."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        files = manifest["files"]
        Progress(**manifest["progress"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"{MANIFEST} is missing or unreadable"
    for name, expected in files.items():
        file = checkpoint / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["bytes"]:
            return f"{name} has {file.stat().st_size} bytes instead of {expected['bytes']}"
        if sha256(file) != expected["sha256"]:
            return f"{name} does not match its checksum"
    return ""


def read_progress(checkpoint: Path) -> Progress:
    """The progress in a checkpoint's manifest."""
    return Progress(**json.loads((checkpoint / MANIFEST).read_text())["progress"])


def require_same_layout(progress: Progress, ranks: int, zero_stage: int, checkpoint: Path) -> None:
    """Raise `InvalidInput` unless the checkpoint was written by as many ranks at the same ZeRO stage."""
    if (progress.ranks, progress.zero_stage) != (ranks, zero_stage):
        raise InvalidInput(
            f"{checkpoint} was written by {progress.ranks} ranks at ZeRO stage {progress.zero_stage}; "
            f"resume with the same (now {ranks} ranks, stage {zero_stage})"
        )


def _prepare(folder: Path, aside: Path, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Make the folder aside, after asking whether the checkpoint fits: weights, the same again, and two moments."""
    weight_bytes = sum(t.numel() * t.element_size() for tensors in weights.values() for t in tensors.values())
    one_network = max(sum(t.numel() * t.element_size() for t in tensors.values()) for tensors in weights.values())
    require_free_space(folder, weight_bytes + 4 * one_network, "a checkpoint")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)


def _write_weights(
    aside: Path, weights: Mapping[str, Mapping[str, Tensor]], recipe: PretrainConfig | FinetuneConfig
) -> None:
    for stem, tensors in weights.items():
        write_weights(aside / f"{stem}.safetensors", tensors, OwnMetadata(stem, recipe).as_strings())


def _finish(aside: Path, final: Path, progress: Progress) -> None:
    """Flush every file, write the manifest, rename."""
    files = {}
    for file in sorted(path for path in aside.rglob("*") if path.is_file()):
        flush(file)
        files[str(file.relative_to(aside))] = {"bytes": file.stat().st_size, "sha256": sha256(file)}
    write_text(aside / MANIFEST, json.dumps({"progress": asdict(progress), "files": files}, indent=2) + "\n")
    if final.exists():
        shutil.rmtree(final)  # a damaged one of the same step, done again
    aside.rename(final)
    flush(final.parent)


def _prune(folder: Path, keep: int) -> None:
    for old in sorted(folder.glob("step-*"), reverse=True)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    for leftover in folder.glob(f".step-*{PARTIAL}"):
        shutil.rmtree(leftover, ignore_errors=True)


def _raise_together(problem: str) -> None:
    """Let every rank fail with the main rank's problem, so that none waits for ever."""
    problem = agree(problem)
    if problem:
        raise RunFailure(problem)
