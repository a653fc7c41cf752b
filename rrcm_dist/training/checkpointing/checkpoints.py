"""Checkpoints that appear whole, know when they are damaged, and suit any number of ranks at any ZeRO stage.

    checkpoints/latest              name of the newest checkpoint, for people and scripts
    checkpoints/step-000005000/
        manifest.json               step, samples_seen, ranks, ZeRO stage, and SHA-256 and size of every other file
        online.safetensors, target.safetensors   (pre-training)   whole weights under our names, recipe in the metadata
        model.safetensors                        (fine-tuning)
        average-0.999.safetensors                where the recipe asks for averages
        resume/optimizer.safetensors             AdamW's moments, whole, by the parameters' names
        resume/probe.safetensors                 (pre-training with a probe)

A checkpoint is written aside, its manifest last, flushed, and renamed. A folder whose files disagree with its manifest
is damaged: it is passed over, said aloud, and the one before it is used.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from rrcm_dist.config.estimate import checkpoint_bytes
from rrcm_dist.config.keys import TrainingRecipe
from rrcm_dist.distributed.collectives import agree, own_rank
from rrcm_dist.errors import InvalidInput, RRCMError, RunFailure
from rrcm_dist.files import PARTIAL, flush, require_free_space, sha256, write_text
from rrcm_dist.models.checkpoint_files import MANIFEST, OwnMetadata, newest_undamaged
from rrcm_dist.models.weights import read_tensors, write_weights

LATEST = "latest"
RESUME = "resume"
"""Folder within a checkpoint for what only resuming needs."""
OPTIMIZER = "optimizer"


@dataclass(frozen=True)
class Progress:
    """How far a run has come, and on what."""

    step: int
    samples_seen: int
    ranks: int
    zero_stage: int
    finished: bool = False
    data: str = ""
    """Identity of the training samples and the order of their shards."""


@dataclass(frozen=True)
class Contents:
    """What a checkpoint keeps: file stem → tensor by name; on the CPU of the main rank, empty elsewhere."""

    networks: Mapping[str, Mapping[str, Tensor]]
    """Weights that have other uses, too."""
    resume: Mapping[str, Mapping[str, Tensor]]
    """What only resuming needs."""


def write_checkpoint(folder: Path, contents: Contents, recipe: TrainingRecipe, progress: Progress) -> Path:
    """Write a checkpoint into the run's `checkpoints/` on this rank alone, and prune those that need not stay.

    Returns its folder, which exists whole or not at all. Raises `RunFailure` or `OSError` where that cannot be; nothing
    that was begun takes room then.
    """
    final = checkpoint_of(folder, progress.step)
    aside = folder / f".{final.name}{PARTIAL}"
    try:
        require_room(folder, recipe)
        (aside / RESUME).mkdir(parents=True)
        for stem, tensors in contents.networks.items():
            write_weights(aside / f"{stem}.safetensors", tensors, OwnMetadata(stem, recipe).as_strings())
        for stem, tensors in contents.resume.items():
            write_weights(aside / RESUME / f"{stem}.safetensors", tensors, {"kind": stem})
        _finish(aside, final, progress)
        write_text(folder / LATEST, final.name + "\n")
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    there = [path.name for path in folder.glob("step-*") if is_checkpoint(path.name)]
    for old in set(there) - staying(there, final.name, recipe):
        shutil.rmtree(folder / old, ignore_errors=True)
    return final


def checkpoint_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies in a run's `checkpoints/`."""
    return folder / f"step-{step:09d}"


def is_checkpoint(name: str) -> bool:
    """Whether a checkpoint's folder is called so; a copy that somebody made under another name is not ours to prune."""
    return re.fullmatch(r"step-\d{9,}", name) is not None


def require_room(folder: Path, recipe: TrainingRecipe) -> None:
    """Raise `RunFailure` where a checkpoint would not fit on the disk of `folder`.

    Unfinished ones, left by a killed run, are removed first.
    """
    for leftover in folder.glob(f".step-*{PARTIAL}"):
        shutil.rmtree(leftover, ignore_errors=True)
    require_free_space(folder, checkpoint_bytes(recipe), "a checkpoint")


def staying(names: list[str], newest: str, recipe: TrainingRecipe) -> set[str]:
    """Which checkpoints stay, by the recipe's policy, once that of the name `newest` is there.

    The newest `keep_checkpoints`, and each whose step is a multiple of `keep_every`. What lies beyond the newest was
    damaged and is done again: it goes.
    """
    settings = recipe.training
    up_to_newest = sorted(name for name in names if name <= newest)
    for_good = {name for name in up_to_newest if settings.keep_every and _step_of(name) % settings.keep_every == 0}
    return {*up_to_newest[-settings.keep_checkpoints :], *for_good}


def find_checkpoint(folder: Path) -> tuple[Path, Progress] | None:
    """The newest undamaged checkpoint and its progress, the same on every rank; None where there is none at all.

    Damaged ones are named in a warning. Raises `RunFailure` where all are damaged, `InvalidInput` where it is of a
    version that resumed otherwise.
    """
    found: tuple[Path, Progress] | None = None
    problem: RRCMError | None = None
    if own_rank() == 0:
        try:
            checkpoint = newest_undamaged(folder)
            found = (checkpoint, _read_progress(checkpoint)) if checkpoint else None
        except RRCMError as error:
            problem = error
        except OSError as error:
            problem = RunFailure(f"the checkpoints in {folder} cannot be read: {error}")
    found, problem = agree((found, problem))
    if problem is not None:
        raise problem
    return found


def read_network(checkpoint: Path, stem: str) -> dict[str, Tensor] | None:
    """A network's weights in a checkpoint, on the CPU; None where it has none of that name."""
    file = checkpoint / f"{stem}.safetensors"
    return read_tensors(file) if file.is_file() else None


def read_resume_state(checkpoint: Path, stem: str) -> dict[str, Tensor] | None:
    """What a checkpoint keeps under `stem` for resuming, on the CPU; None where it keeps none."""
    return read_network(checkpoint / RESUME, stem)


def _read_progress(checkpoint: Path) -> Progress:
    if not (checkpoint / RESUME / f"{OPTIMIZER}.safetensors").is_file():
        raise InvalidInput(
            f"{checkpoint} was written by an earlier version, whose optimiser state this one cannot read: give another "
            "output; its weights can be fine-tuned and evaluated as before"
        )
    try:
        return Progress(**json.loads((checkpoint / MANIFEST).read_text())["progress"])
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"{checkpoint} was written by a later version ({error}): go on with that one") from error


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


def _step_of(name: str) -> int:
    return int(name.removeprefix("step-"))
