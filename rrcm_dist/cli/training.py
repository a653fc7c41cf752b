"""What `rrcm pretrain`, `rrcm finetune` and `rrcm train-ibp` have in common."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import typer

from rrcm_dist.config.keys import TrainingRecipe
from rrcm_dist.errors import INTERRUPTED, InvalidInput, RunFailure

if TYPE_CHECKING:
    from rrcm_dist.distributed.world import World

LOST_RANK = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL communicator was aborted")
"""What gloo and NCCL say when the process at the other end is gone."""


class _StandardError(logging.Handler):
    """Writes to what standard error is at the moment: where a progress bar is live, above it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def train_or_estimate(
    kind: Literal["pretrain", "finetune", "train-ibp"],
    recipe: str,
    overrides: list[str] | None,
    dry_run: bool,
    resume: str,
    allow: list[str] | None,
    device: str,
    gpus: int,
    gpu: str,
) -> None:
    """What the command called `kind` does with its options."""
    from rrcm_dist.config.keys import require_keys
    from rrcm_dist.config.load import load_recipe

    loaded = load_recipe(recipe, overrides or (), kind)
    require_keys(allow or (), kind)
    assert isinstance(loaded, TrainingRecipe)
    if dry_run:
        from rrcm_dist.cli.dry_run import show_costs

        show_costs(loaded, gpus, gpu)
    else:
        run_training(loaded, device, resume, allow or ())


def run_training(recipe: TrainingRecipe, device: str, resume: str, allow: Sequence[str] = ()) -> None:
    """Train as a rank of the world that torchrun describes, or alone; prints where the checkpoint is."""
    if resume not in ("auto", "never"):
        raise InvalidInput(f"--resume {resume!r} is not known: choose auto or never")
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[_StandardError()])
    from rrcm_dist.distributed.world import join_world
    from rrcm_dist.training.loop import train
    from rrcm_dist.training.stages import stages_of

    with join_world(device) as world, _lost_ranks_in_words(world):
        for stage in stages_of(recipe, world, allow):
            output, outcome = stage.recipe.output, train(stage, world, resume == "auto", allow)
            del stage  # its networks would take memory while the next one is put together
            if outcome.interrupted:
                break
        if world.is_main:
            typer.echo(str(outcome.checkpoint))
            if outcome.interrupted:
                print(f"stopped at step {outcome.step} of {output}", file=sys.stderr)
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)


@contextmanager
def _lost_ranks_in_words(world: "World") -> Iterator[None]:
    """The rank that fails says why; for the others, what its end makes of their communication says nothing more."""
    try:
        yield
    except RuntimeError as error:
        if world.size == 1 or not any(sign in str(error) for sign in LOST_RANK):
            raise
        raise RunFailure(f"rank {world.rank} lost another rank, which says for itself why it ended") from error
