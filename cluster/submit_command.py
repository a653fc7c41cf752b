"""`python -m cluster submit`."""

from enum import StrEnum
from typing import Annotated

import typer

from rrcm_dist.cli.options import OverridesArgument, RecipeArgument, ResumeOption


class Kind(StrEnum):
    """What is run."""

    PRETRAIN = "pretrain"
    FINETUNE = "finetune"
    CERTIFY = "certify"


def command(
    kind: Annotated[Kind, typer.Argument(help="What to run.", show_default=False)],
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    backend: Annotated[
        str | None, typer.Option(help="Where: local (this machine) or slurm.", show_default="the site file's, or local")
    ] = None,
    site: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="YAML file that describes the place.", show_default="configs/cluster/local.yaml"
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be started, and stop.", show_default=False)
    ] = False,
) -> None:
    """Start a training run as many ranks that train together.

    python -m cluster submit pretrain imagenet/pretrain-b data.train=SHARDS output=RUN --ranks 8
    python -m cluster submit pretrain imagenet/pretrain-b data.train=SHARDS output=RUN --site SLURM.yaml

    On Slurm the run is queued, and goes on by itself after time limits, preemptions, lost nodes and a few crashes;
    `python -m cluster status RUN` tells where it stands.

    On this machine it shows what rank 0 prints; every rank's output is kept in RUN/logs/rank-R.log. If one rank dies,
    all are stopped, and the end of its log is shown; the exit code is that rank's. Ctrl-C and SIGTERM are passed on:
    the ranks finish their step and keep a checkpoint; twice stops at once. The same command goes on from the newest
    good checkpoint.
    """
    from cluster.backends import open_backend
    from cluster.jobs.describe import describe_job

    job = describe_job(kind.value, recipe, tuple(overrides or ()), resume)
    given = {"ranks": ranks, "threads": threads, "device": device}
    place = open_backend(backend, site, {key: value for key, value in given.items() if value is not None})
    if dry_run:
        typer.echo(place.describe(job))
    else:
        raise typer.Exit(place.submit(job))
