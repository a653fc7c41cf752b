"""Checkpoints that appear whole and know when they are damaged.

    checkpoints/latest              name of the newest checkpoint, for people and scripts
    checkpoints/step-000005000/
        manifest.json               step, samples_seen, ranks, ZeRO stage, and SHA-256 and size of every other file
        online.safetensors, target.safetensors   (pre-training)   whole weights under our names, recipe in the metadata
        model.safetensors                        (fine-tuning)
        deepspeed/                  parameters and optimiser state, for resuming

A checkpoint is written aside, its manifest last, flushed, and renamed. A folder whose files disagree with its manifest
is damaged: it is passed over, said aloud, and the one before it is used.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from rrcm_dist.config.estimate import checkpoint_networks
from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.distributed.collectives import agree, first_problem, own_rank
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import InvalidInput, RRCMError, RunFailure
from rrcm_dist.files import PARTIAL, disk_failure, flush, require_free_space, sha256, write_text
from rrcm_dist.models.checkpoint_files import MANIFEST, OwnMetadata, newest_undamaged
from rrcm_dist.models.weights import write_weights
from rrcm_dist.training.engine import Engine

LATEST = "latest"
WRITER_FAILED = ("PytorchStreamWriter", "iostream error", "unexpected pos")
"""What torch's file writer says, as a RuntimeError, when the disk is full."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come, and on what."""

    step: int
    samples_seen: int
    ranks: int
    zero_stage: int
    finished: bool = False


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
    final = folder / f"step-{progress.step:09d}"
    aside = folder / f".{final.name}{PARTIAL}"

    def write() -> None:
        _write_weights(aside, weights, recipe)
        _finish(aside, final, progress)
        write_text(folder / LATEST, final.name + "\n")
        _prune(folder, final, keep)

    _together(final, lambda: _prepare(folder, aside, engine, recipe), on_this_rank=world.is_main)
    try:
        _together(final, lambda: engine.save_state(aside))
        _together(final, write, on_this_rank=world.is_main)
    except RunFailure:
        if world.is_main:
            shutil.rmtree(aside, ignore_errors=True)
        raise
    return final


def require_room(folder: Path, engine: Engine, recipe: PretrainConfig | FinetuneConfig) -> None:
    """Raise `RunFailure` where a checkpoint of the engine's network would not fit on the disk of `folder`.

    Unfinished ones, left by a killed run, are removed first.
    """
    for leftover in folder.glob(f".step-*{PARTIAL}"):
        shutil.rmtree(leftover, ignore_errors=True)
    require_free_space(folder, checkpoint_networks(recipe) * engine.network_bytes(), "a checkpoint")


def find_checkpoint(folder: Path) -> tuple[Path, Progress] | None:
    """The newest undamaged checkpoint and its progress, the same on every rank; None where there is none at all.

    Damaged ones are named in a warning. Raises `RunFailure` where all are damaged.
    """
    found, problem = None, ""
    if own_rank() == 0:
        try:
            checkpoint = newest_undamaged(folder)
            found = (checkpoint, read_progress(checkpoint)) if checkpoint else None
        except RunFailure as error:
            problem = str(error)
    found, problem = agree((found, problem))
    if problem:
        raise RunFailure(problem)
    return found


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


def _together(final: Path, write: Callable[[], None], on_this_rank: bool = True) -> None:
    """Call `write` where it is to be called; where it fails on any rank, every rank raises that rank's problem."""
    problem = ""
    if on_this_rank:
        try:
            write()
        except RRCMError as error:
            problem = str(error)
        except OSError as error:
            problem = str(disk_failure(error, final))
        except RuntimeError as error:
            if not any(sign in str(error) for sign in WRITER_FAILED):
                raise
            problem = f"checkpoint {final} was not written ({str(error).splitlines()[0]}): is the disk full?"
    problem = first_problem(problem)
    if problem:
        raise RunFailure(f"{problem}; the checkpoints before it are untouched")


def _prepare(folder: Path, aside: Path, engine: Engine, recipe: PretrainConfig | FinetuneConfig) -> None:
    require_room(folder, engine, recipe)
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


def _prune(folder: Path, newest: Path, keep: int) -> None:
    """Remove all but the `keep` newest; what lies beyond the newest was damaged and is done again."""
    checkpoints = sorted(folder.glob("step-*"), reverse=True)
    beyond = checkpoints.index(newest)
    for old in checkpoints[:beyond] + checkpoints[beyond + keep :]:
        shutil.rmtree(old, ignore_errors=True)
