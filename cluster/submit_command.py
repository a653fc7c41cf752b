"""`python -m cluster submit`."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from rrcm_dist.cli.options import AllowOption, OverridesArgument, RecipeArgument, ResumeOption
from rrcm_dist.errors import InvalidInput

if TYPE_CHECKING:
    from cluster.backends import Backend


class Kind(StrEnum):
    """What is run."""

    PRETRAIN = "pretrain"
    FINETUNE = "finetune"
    TRAIN_IBP = "train-ibp"
    CERTIFY = "certify"
    PAPER = "paper"


def command(
    kind: Annotated[Kind, typer.Argument(help="What to run.", show_default=False)],
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    backend: Annotated[
        str | None,
        typer.Option(help="Where: local (this machine), slurm or ray.", show_default="the site file's, or local"),
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
    allow: AllowOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be started, and stop.", show_default=False)
    ] = False,
) -> None:
    """Start a training run of many ranks, a certification, or the whole paper, here or on a cluster.

    ```sh
    python -m cluster submit pretrain imagenet/pretrain-b data.train=SHARDS output=RUN --ranks 8
    python -m cluster submit pretrain imagenet/pretrain-b data.train=SHARDS output=RUN --site SLURM.yaml
    python -m cluster submit certify imagenet/certify-b data=SHARDS output=RUN --site SLURM.yaml
    python -m cluster submit paper imagenet/paper-b train=SHARDS held_out=SHARDS output=FOLDER --site SLURM.yaml
    ```

    On Slurm, and as a job of a standing Ray cluster, the run is queued, and goes on by itself after time limits,
    preemptions, lost nodes and a few crashes; `python -m cluster status RUN` tells where it stands.

    On this machine it shows what rank 0 prints; every rank's output is kept in RUN/logs/rank-R.log. If one rank dies,
    all are stopped, and the end of its log is shown; the exit code is that rank's. Ctrl-C and SIGTERM are passed on:
    the ranks finish their step and keep a checkpoint; twice stops at once. The same command goes on from the newest
    good checkpoint.
    """
    from cluster.backends import open_backend
    from cluster.jobs.describe import describe_job

    given = {"ranks": ranks, "threads": threads, "device": device}
    place = open_backend(backend, site, {key: value for key, value in given.items() if value is not None})
    if kind is Kind.PAPER:
        if allow:
            raise InvalidInput("--allow is for one training run: submit that stage by itself")
        raise typer.Exit(_submit_paper(recipe, overrides or [], place, dry_run))
    job = describe_job(kind.value, recipe, tuple(overrides or ()), resume, tuple(allow or ()))
    if dry_run:
        typer.echo(place.describe(job))
    else:
        raise typer.Exit(place.submit(job))


def _submit_paper(recipe: str, overrides: list[str], place: "Backend", dry_run: bool) -> int:
    from cluster.paper.plan import plan_paper
    from cluster.paper.submission import describe_paper, submit_paper
    from rrcm_dist.config.load import load_recipe

    paper = plan_paper(load_recipe(recipe, overrides, kind="paper"))
    if not dry_run:
        return submit_paper(paper, place)
    typer.echo(describe_paper(paper, place))
    return 0
