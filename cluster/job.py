"""A training run to start somewhere: what each of its ranks executes, checked before anything is queued."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rrcm_dist.config.load import load_recipe
from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.errors import InvalidInput


@dataclass(frozen=True)
class Job:
    """One training run; every rank executes the same command and is told its place by environment variables."""

    kind: Literal["pretrain", "finetune"]
    recipe: str
    """As given: a file, or the name of one of the project's recipes."""
    overrides: tuple[str, ...]
    resume: str
    resolved: PretrainConfig | FinetuneConfig

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.resolved.output)

    def command(self, device: str) -> list[str]:
        """What a rank executes."""
        door = [sys.executable, "-m", "rrcm_dist.cli.main"]
        return [*door, self.kind, self.recipe, *self.overrides, "--resume", self.resume, "--device", device]

    def check_ranks(self, ranks: int) -> None:
        """Raise `InvalidInput` unless so many ranks can share the batch; the same run comes of any that can."""
        streams = self.resolved.data.streams
        if streams % ranks:
            from rrcm_dist.data.order import divisors

            fitting = ", ".join(map(str, divisors(streams)))
            raise InvalidInput(
                f"{ranks} ranks cannot share data.streams {streams} evenly: choose {fitting} ranks, or other streams"
            )


def describe_job(kind: Literal["pretrain", "finetune"], recipe: str, overrides: tuple[str, ...], resume: str) -> Job:
    """The job, with its recipe resolved. Raises `InvalidInput` naming every problem of the recipe."""
    if resume not in ("auto", "never"):
        raise InvalidInput(f"--resume {resume!r} is not known: choose auto or never")
    resolved = load_recipe(recipe, overrides, kind=kind)
    return Job(kind, recipe, overrides, resume, resolved)
