"""`python -m cluster logs`."""

from typing import Annotated

import typer

from cluster.options import RunArgument


def command(
    run: RunArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on showing what is written.", show_default=False)
    ] = False,
    rank: Annotated[int | None, typer.Option(min=0, help="Only this rank.", show_default="all, and the job")] = None,
    lines: Annotated[int, typer.Option(min=0, help="How many of each log's last lines to begin with.")] = 20,
) -> None:
    """What the ranks of a submitted run print, in its newest life; with -f until the job has ended."""
    from cluster.watching.logs import show_logs
    from cluster.watching.runs import find_run
    from rrcm_dist.errors import InvalidInput

    found = find_run(run)
    if found.submission["kind"] == "paper":
        raise InvalidInput(f"{found.folder} is a paper: name one of its stages, such as {found.folder}/pretrain")
    show_logs(found, rank, lines, follow)
