"""`python -m cluster status`."""

import typer

from cluster.options import RunArgument


def command(run: RunArgument) -> None:
    """Where a submitted run stands: state, samples, speed, ETA, last checkpoint, restarts and their causes."""
    from cluster.watching.runs import find_run
    from cluster.watching.status import describe_status

    typer.echo(describe_status(find_run(run)))
