"""Small teachers, and recipes that warm up by them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tiny import ENCODER, pretrain_recipe

from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.distributed.world import World, join_world
from rrcm_dist.models.checkpoint_files import OwnMetadata
from rrcm_dist.models.rrcm import PretrainingNetwork
from rrcm_dist.models.weights import write_weights
from rrcm_dist.torchvision_compat import allow_cpu_torch
from rrcm_dist.training.loop import Outcome, train
from rrcm_dist.training.stages import stages_of

DEPTH, BLOCKS, WARMUP_STEPS = 3, 2, 4


def own_teacher(folder: Path, **encoder: Any) -> Path:
    """Weights file of an encoder of ours that nobody trained."""
    values = pretrain_recipe(Path("shards"), Path("run")).model_dump()
    values["encoder"] = {**ENCODER, "width": 48, "depth": 3, "heads": 3, **encoder}
    recipe = PretrainConfig.model_validate({**values, "seed": 5})
    network = PretrainingNetwork(recipe.encoder, recipe.projector, recipe.noise, recipe.seed)
    file = folder / "teacher.safetensors"
    write_weights(file, network.state_dict(), OwnMetadata("target", recipe).as_strings())
    return file


def timm_weights(folder: Path, name: str) -> Path:
    """Weights file of a model of timm, with a classifier, that nobody trained."""
    allow_cpu_torch()
    import timm

    file = folder / f"{name}.pth"
    torch.save(timm.create_model(name, num_classes=5).state_dict(), file)
    return file


def warming(shards: Path, output: Path, teacher: Path, *, section: dict[str, Any] | None = None, **training: Any):
    """A tiny recipe that warms its first blocks up."""
    values = pretrain_recipe(shards, output, **training).model_dump()
    values["encoder"] = {**ENCODER, "depth": DEPTH}
    values["additions"]["representation_warmup"] = {
        "teacher": {"weights": str(teacher)},
        "steps": WARMUP_STEPS,
        "blocks": BLOCKS,
        "hidden": 24,
        "optimizer": {"lr": 1e-3},
        "term": {"halving_steps": 2, "after_block": 1},
        **(section or {}),
    }
    return PretrainConfig.model_validate(values)


def launch(recipe: PretrainConfig, allow: tuple[str, ...] = ()) -> Outcome:
    """What `rrcm pretrain` does, in this process: the stages until one is interrupted."""
    with alone() as world:
        for stage in stages_of(recipe, world, allow):
            outcome = train(stage, world, allow=allow)
            del stage
            if outcome.interrupted:
                break
    return outcome


@contextmanager
def alone() -> Iterator[World]:
    """A world of one rank on the CPU."""
    with join_world("cpu") as world:
        yield world
