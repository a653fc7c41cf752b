"""`python -m cluster cancel`."""

import typer

from cluster.options import RunArgument


def command(run: RunArgument) -> None:
    """End a queued or running run of ours; what its newest checkpoint holds is kept, and `resubmit` goes on."""
    from cluster.slurm.runs import find_run, is_live
    from cluster.slurm.tools import require_slurm, tell
    from rrcm_dist.errors import InvalidInput

    found = find_run(run)
    require_slurm()
    if not is_live(found.job):
        raise InvalidInput(f"job {found.job} of {found.folder} is neither queued nor running")
    tell("scancel", found.job)
    typer.echo(f"job {found.job} is cancelled; `python -m cluster resubmit {found.folder}` goes on where it was")
