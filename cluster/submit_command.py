"""`python -m cluster submit`."""

from enum import StrEnum
from typing import Annotated

import typer

from rrcm_dist.cli.options import OverridesArgument, RecipeArgument, ResumeOption


class Kind(StrEnum):
    """What is run: the `rrcm` command of every rank."""

    PRETRAIN = "pretrain"
    FINETUNE = "finetune"


def command(
    kind: Annotated[Kind, typer.Argument(help="What to run.", show_default=False)],
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    backend: Annotated[str, typer.Option(help="Where: local is this machine.")] = "local",
    site: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="YAML file that describes the place.", show_default="configs/cluster/BACKEND.yaml"
        ),
    ] = None,
    ranks: Annotated[
        int | None, typer.Option(help="Processes that train together.", show_default="the site file's")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of each rank.", show_default="the site file's")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.", show_default="the site file's")] = None,
    resume: ResumeOption = "auto",
) -> None:
    """Start a training run as many ranks that train together.

    python -m cluster submit pretrain imagenet/pretrain-b data.train=SHARDS output=RUN --ranks 8

    Shows what rank 0 prints; every rank's output is kept in RUN/logs/rank-R.log. If one rank dies, all are stopped, and
    the end of its log is shown; the exit code is that rank's. Ctrl-C and SIGTERM are passed on: the ranks finish their
    step and keep a checkpoint; twice stops at once. The same command goes on from the newest good checkpoint.
    """
    from cluster.backends import open_backend
    from cluster.job import describe_job

    job = describe_job(kind.value, recipe, tuple(overrides or ()), resume)
    given = {"ranks": ranks, "threads": threads, "device": device}
    place = open_backend(backend, site, {key: value for key, value in given.items() if value is not None})
    raise typer.Exit(place.submit(job))
