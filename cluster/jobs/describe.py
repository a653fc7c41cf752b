"""From what a user asks for on the command line to a job."""

from cluster.jobs import Job
from cluster.jobs.certification import CertifyJob
from cluster.jobs.training import TrainingJob
from rrcm_dist.config.keys import TrainingRecipe, require_keys
from rrcm_dist.config.load import load_recipe
from rrcm_dist.config.schema import CertifyConfig
from rrcm_dist.errors import InvalidInput


def describe_job(kind: str, recipe: str, overrides: tuple[str, ...], resume: str, allow: tuple[str, ...] = ()) -> Job:
    """The job, with its recipe resolved. Raises `InvalidInput` naming every problem of the recipe."""
    if resume not in ("auto", "never"):
        raise InvalidInput(f"--resume {resume!r} is not known: choose auto or never")
    resolved = load_recipe(recipe, overrides, kind=kind)
    if isinstance(resolved, CertifyConfig):
        if resume == "never":
            raise InvalidInput("--resume never is for training: a ledger is always gone on with; give another output")
        if allow:
            raise InvalidInput("--allow is for training: a ledger belongs to one recipe; give another output")
        return CertifyJob(recipe, overrides, resolved)
    assert isinstance(resolved, TrainingRecipe)
    require_keys(allow, kind)
    return TrainingJob(resolved.kind, recipe, overrides, resume, resolved, allow)
