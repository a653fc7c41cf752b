"""What `--dry-run` does, for every command that has it."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rrcm_dist.config.keys import TrainingRecipe
from rrcm_dist.config.schema import CertifyConfig, PretrainConfig
from rrcm_dist.config.verify import VerifyConfig
from rrcm_dist.errors import RRCMError
from rrcm_dist.storage.store import is_url

if TYPE_CHECKING:
    from rrcm_dist.config.warmup_costs import TeacherCost

STORE_SECONDS = 10.0
"""How long a store is waited for, for the number of its samples."""


def show_costs(recipe: TrainingRecipe | CertifyConfig | VerifyConfig, gpus: int, gpu: str) -> None:
    """Print the resolved recipe and its costs for the samples of its shards, where they are here."""
    from rrcm_dist.config.describe import describe

    shards = recipe.data if isinstance(recipe, CertifyConfig | VerifyConfig) else recipe.data.train
    typer.echo(describe(recipe, gpus, gpu, _samples(shards), _teacher(recipe)))


def _teacher(recipe: TrainingRecipe | CertifyConfig | VerifyConfig) -> "TeacherCost | None":
    """What the teacher of a representation warm-up costs, where it is here."""
    section = recipe.additions.representation_warmup if isinstance(recipe, PretrainConfig) else None
    if section is None or not Path(section.teacher.weights).exists():
        return None
    from rrcm_dist.warmup.teacher import load_teacher

    assert isinstance(recipe, PretrainConfig)
    return load_teacher(section.teacher, recipe.encoder).cost


def _samples(place: str) -> int | None:
    from rrcm_dist.data.index import INDEX_FILE, read_header
    from rrcm_dist.data.stores import StoreSettings

    if is_url(place):
        with suppress(RRCMError):  # a store that is out of reach here may be in reach where the run will be
            return read_header(place, StoreSettings(patience=STORE_SECONDS))["samples"]
        return None
    return read_header(place)["samples"] if (Path(place) / INDEX_FILE).exists() else None
