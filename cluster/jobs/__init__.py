"""What is to be run, wherever: a training run, a certification, or a single command; checked before it is started."""

from pathlib import Path
from typing import Protocol


class Job(Protocol):
    """One piece of work with a run folder of its own; started again, it goes on where it was."""

    @property
    def kind(self) -> str:
        """pretrain, finetune, certify, or the name of a single command."""

    @property
    def name(self) -> str:
        """Name of the run, in queues and logs."""

    @property
    def folder(self) -> Path:
        """The run folder."""

    def recipe_text(self) -> str:
        """The resolved recipe, to be kept with a submission: changing the recipe later changes nothing of that."""

    def command(self, device: str, recipe: Path | None = None) -> list[str]:
        """What a process of the job executes, with the kept `recipe`; None: with the recipe as the user named it."""

    def check_inputs(self, waits: bool) -> None:
        """Raise `InvalidInput` for what it reads and is not there.

        waits: for other jobs, which may still make what it starts from.
        """

    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
