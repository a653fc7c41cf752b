"""What a paper consists of: which jobs, and which of them wait for which."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cluster.jobs import Job
from cluster.jobs.certification import CertifyJob
from cluster.jobs.single import SingleJob
from cluster.jobs.training import TrainingJob
from cluster.record.history import History
from cluster.watching.runs import enter_working_folder
from rrcm_dist.certification.ledger.place import LEDGER_FILE
from rrcm_dist.config.load import dump_recipe, load_recipe
from rrcm_dist.config.paper import paper_recipes
from rrcm_dist.config.schema import CertifyConfig, FinetuneConfig, PaperConfig, PretrainConfig
from rrcm_dist.data.index import INDEX_FILE
from rrcm_dist.files import write_text
from rrcm_dist.storage.store import is_url

KIND: Final = "paper"


@dataclass(frozen=True)
class Stage:
    """One job of a paper."""

    name: str
    job: Job
    after: tuple[str, ...] = field(default=())
    """Names of the stages that must have ended well before it."""


@dataclass(frozen=True)
class Paper:
    """A paper's recipe and its stages."""

    recipe: PaperConfig
    stages: tuple[Stage, ...]
    """In an order in which they can be run one after the other."""

    @property
    def folder(self) -> Path:
        """Where everything is."""
        return Path(self.recipe.output)

    @property
    def history(self) -> History:
        """Of its submissions; each stage has its own."""
        return History(self.folder)

    def keep_recipes(self) -> None:
        """Write the recipes of the paper and of its stages into its folder."""
        write_text(self.folder / "recipe.yaml", dump_recipe(self.recipe))
        for stage in self.stages:
            if not isinstance(stage.job, SingleJob):
                write_text(stage_recipe(self.folder, stage.name), stage.job.recipe_text())

    def missing(self) -> list[Stage]:
        """Stages that are not finished, and those that come after one that is not: they would be of another input."""
        missing: list[Stage] = []
        for stage in self.stages:
            waits = any(other.name in stage.after for other in missing)
            if waits or not stage.job.is_finished():
                missing.append(stage)
        return missing


def plan_paper(recipe: PaperConfig) -> Paper:
    """The stages of a recipe. Raises `InvalidInput` where the recipe of a stage cannot be."""
    folder, recipes = Path(recipe.output), paper_recipes(recipe)
    checks = [_shards_check(folder, name, getattr(recipe, name)) for name in ("train", "held_out")]
    pretrain = Stage("pretrain", _training(folder, "pretrain", recipes.pretrain), tuple(c.name for c in checks))
    tunings = [
        Stage(name, _training(folder, name, tuned), (pretrain.name,))
        for tuned in recipes.finetune
        for name in [Path(tuned.output).name]
    ]
    certify = Stage("certificates", _certification(folder, recipes.certify), tuple(t.name for t in tunings))
    report = Stage("report", _report(folder, recipe, recipes.certify), (certify.name,))
    return Paper(recipe, (*checks, pretrain, *tunings, certify, report))


def open_paper(submission: dict[str, Any]) -> Paper:
    """The paper of a line of jobs.jsonl, as it was submitted; changes to the working folder of then."""
    enter_working_folder(submission)
    return plan_paper(load_recipe(submission["recipe"], kind=KIND))


def stage_recipe(folder: Path, stage: str) -> Path:
    """Where a stage's recipe is kept."""
    return folder / "recipes" / f"{stage}.yaml"


def _training(folder: Path, name: str, resolved: PretrainConfig | FinetuneConfig) -> TrainingJob:
    return TrainingJob(resolved.kind, str(stage_recipe(folder, name)), (), "auto", resolved)


def _certification(folder: Path, resolved: CertifyConfig) -> CertifyJob:
    return CertifyJob(str(stage_recipe(folder, "certificates")), (), resolved)


def _shards_check(folder: Path, name: str, shards: str) -> Stage:
    command, inputs = ("-m", "shards", "verify", shards), () if is_url(shards) else (Path(shards) / INDEX_FILE,)
    check = f"check-{name.replace('_', '-')}"
    return Stage(check, SingleJob("shards", f"{folder.name}-{check}", folder / check, command, inputs))


def _report(folder: Path, paper: PaperConfig, certify: CertifyConfig) -> SingleJob:
    report, title = folder / "report", ("--title", paper.title) if paper.title else ()
    command = ("-m", "rrcm_dist.cli.main", "report", certify.output, "--output", str(report), *title)
    ledger = Path(certify.output) / LEDGER_FILE
    return SingleJob("report", f"{paper.name}-report", report, command, (ledger,))
