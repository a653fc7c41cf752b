"""`python -m cluster resubmit`."""

import os

import typer

from cluster.options import RunArgument


def command(run: RunArgument) -> None:
    """Queue a run again that ended before it was finished, as it was submitted last; it goes on where it was."""
    from cluster.backends.slurm import SlurmBackend
    from cluster.job import describe_job
    from cluster.record.progress import newest_checkpoint
    from cluster.site import SlurmSite
    from cluster.slurm.runs import find_run
    from rrcm_dist.errors import InvalidInput

    found = find_run(run)
    newest = newest_checkpoint(found.folder)
    if newest and newest.finished:
        raise InvalidInput(f"{found.folder} is finished (step {newest.step}): nothing is left to do")
    last = found.submission
    os.chdir(last["working_folder"])  # the recipe's paths may be relative
    job = describe_job(last["kind"], last["recipe"], (), "auto")
    raise typer.Exit(SlurmBackend(SlurmSite.model_validate(last["site"])).submit(job))
