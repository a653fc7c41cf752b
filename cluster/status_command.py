"""`python -m cluster status`."""

import typer

from cluster.options import RunArgument


def command(run: RunArgument) -> None:
    """Where a submitted run stands: state, samples, speed, ETA, last checkpoint, restarts and their causes.

    Of a paper, its stages.
    """
    from cluster.watching.runs import find_run
    from cluster.watching.status import describe_status

    found = find_run(run)
    if found.submission["kind"] == "paper":
        from cluster.paper.plan import open_paper
        from cluster.paper.state import describe_paper_status

        typer.echo(describe_paper_status(open_paper(found.submission)))
    else:
        typer.echo(describe_status(found))
