"""`python -m cluster cancel`."""

import typer

from cluster.options import RunArgument


def command(run: RunArgument) -> None:
    """End a queued or running run of ours; what its newest checkpoint holds is kept, and `resubmit` goes on."""
    from cluster.watching.runs import find_run
    from rrcm_dist.errors import InvalidInput

    found = find_run(run)
    if found.submission["kind"] == "paper":
        from cluster.paper.plan import open_paper
        from cluster.paper.submission import cancel_paper

        typer.echo(cancel_paper(open_paper(found.submission)))
        return
    if not found.place.is_live():
        raise InvalidInput(f"job {found.job} of {found.folder} is neither queued nor running")
    found.place.cancel()
    typer.echo(f"job {found.job} is cancelled; `python -m cluster resubmit {found.folder}` goes on where it was")
