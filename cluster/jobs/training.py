"""A training run: what each of its ranks executes."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cluster.jobs.inputs import check_paths
from cluster.record.progress import newest_checkpoint
from rrcm_dist.config.keys import TrainingRecipe
from rrcm_dist.config.load import dump_recipe
from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.errors import InvalidInput
from rrcm_dist.training.run_folder import refuse_other_recipe


@dataclass(frozen=True)
class TrainingJob:
    """One training run; every rank executes the same command and is told its place by environment variables."""

    kind: Literal["pretrain", "finetune", "train-ibp"]
    recipe: str
    """As given: a file, or the name of one of the project's recipes."""
    overrides: tuple[str, ...]
    resume: str
    resolved: TrainingRecipe
    allow: tuple[str, ...] = ()
    """Keys in which the run that the folder holds may differ."""

    @property
    def name(self) -> str:
        """The recipe's."""
        return self.resolved.name

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.resolved.output)

    def recipe_text(self) -> str:
        """The resolved recipe."""
        return dump_recipe(self.resolved)

    def command(self, device: str, recipe: Path | None = None) -> list[str]:
        """What a rank executes."""
        return [sys.executable, "-m", "rrcm_dist.cli.main", *self.arguments(device, recipe)]

    def arguments(self, device: str, recipe: Path | None = None) -> list[str]:
        """What a rank asks `rrcm` for, by whichever door."""
        allowed = [word for key in self.allow for word in ("--allow", key)]
        if recipe is not None:
            return [self.kind, str(recipe), "--resume", "auto", "--device", device, *allowed]
        return [self.kind, self.recipe, *self.overrides, "--resume", self.resume, "--device", device, *allowed]

    def check_inputs(self, waits: bool) -> None:
        """Raise `InvalidInput` for shards, and for a starting point or a teacher, that are not there."""
        data, recipe = self.resolved.data, self.resolved
        paths = {"data.train": data.train, "data.held_out": data.held_out}
        check_paths(paths if waits else {**paths, **_begins_from(recipe)})

    def is_finished(self) -> bool:
        """Whether its newest checkpoint is the last one of this very run."""
        newest = newest_checkpoint(self.folder)
        if newest is None or not newest.finished:
            return False
        with suppress(InvalidInput):
            refuse_other_recipe(self.resolved)
            return True
        return False

    def check_ranks(self, ranks: int) -> None:
        """Raise `InvalidInput` unless so many ranks can share the batch; the same run comes of any that can."""
        streams = self.resolved.data.streams
        if streams % ranks:
            from rrcm_dist.data.order import divisors

            fitting = ", ".join(map(str, divisors(streams)))
            raise InvalidInput(
                f"{ranks} ranks cannot share data.streams {streams} evenly: choose {fitting} ranks, or other streams"
            )

    def check_start(self) -> None:
        """Raise `InvalidInput` where the folder holds another run, or checkpoints and the run shall begin anew."""
        refuse_other_recipe(self.resolved, self.allow)
        if self.resume == "never" and newest_checkpoint(self.folder):
            raise InvalidInput(
                f"{self.folder} holds checkpoints: --resume auto goes on from the newest, or give another output"
            )


def _begins_from(recipe: TrainingRecipe) -> dict[str, str | None]:
    """What an earlier run may have to make first, by its key."""
    if isinstance(recipe, FinetuneConfig):
        return {"start_from": recipe.start_from}
    section = recipe.additions.representation_warmup if isinstance(recipe, PretrainConfig) else None
    return {"additions.representation_warmup.teacher.weights": section.teacher.weights if section else None}
