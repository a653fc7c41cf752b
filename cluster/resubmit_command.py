"""`python -m cluster resubmit`."""

import typer

from cluster.options import RunArgument


def command(run: RunArgument) -> None:
    """Queue a run again that ended before it was finished, as it was submitted last; it goes on where it was.

    Of a paper, the stages that are missing, and those that wait for one that failed.
    """
    from cluster.backends import backend_of_submission
    from cluster.jobs.describe import describe_job
    from cluster.watching.runs import enter_working_folder, find_run
    from rrcm_dist.config.keys import MODELS
    from rrcm_dist.errors import InvalidInput

    found = find_run(run)
    last = found.submission
    if last["kind"] == "paper":
        from cluster.paper.plan import open_paper
        from cluster.paper.submission import submit_paper

        raise typer.Exit(submit_paper(open_paper(last), backend_of_submission(last)))
    if last["kind"] not in MODELS:
        raise InvalidInput(f"{found.folder} is a stage of a paper: `python -m cluster resubmit {found.folder.parent}`")
    enter_working_folder(last)
    job = describe_job(last["kind"], last["recipe"], (), "auto")
    if job.is_finished():
        raise InvalidInput(f"{found.folder} is finished: nothing is left to do")
    if unfit := found.history.excluded(found.job):
        last = {**last, "site": {**last["site"], "exclude": sorted({*last["site"]["exclude"], *unfit})}}
    raise typer.Exit(backend_of_submission(last).submit(job))
