"""The whole pipeline on scikit-learn's handwritten digits: shards, pre-training, fine-tuning, certification, report.

The output folder holds

    shards/train, shards/held-out        made by `python -m shards build digits`
    pretrain/                            the pre-training run
    pre-trained/sigma_0.25/ …            a fine-tuning run per σ, from the pre-trained encoder
    from-scratch/sigma_0.25/ …           the same fine-tuning from a fresh encoder
    pre-trained/certificates, from-scratch/certificates
    report/report.html                   the page
    summary.json                         per encoder and σ: acr, certified_accuracy by radius, seconds
    recipe.yaml, stages.json             what the demo is, and how long each stage took

Every stage is the real one, at the size of digits; run again, the demo goes on where it stopped.
"""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rrcm_dist.certification.run import certify
from rrcm_dist.config.load import dump_recipe
from rrcm_dist.config.schema import CertifyConfig, DemoConfig, FinetuneConfig, PretrainConfig
from rrcm_dist.distributed.world import World, join_world
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.files import write_json, write_text
from rrcm_dist.reporting.certificates import Source
from rrcm_dist.reporting.report import Report, build_report
from rrcm_dist.training.finetuning import prepare_finetuning
from rrcm_dist.training.loop import Training, train
from rrcm_dist.training.pretraining import prepare_pretraining
from rrcm_dist.training.run_folder import differences

ENCODERS = {"pre-trained": "pretrain", "from scratch": None}
"""Name in the report → folder of the run that its fine-tuning starts from."""

Recipe = TypeVar("Recipe", PretrainConfig, FinetuneConfig, CertifyConfig)


@dataclass(frozen=True)
class DemoResult:
    """Where the demo's results are."""

    page: Path
    summary: Path


class Interrupted(KeyboardInterrupt):
    """A stage was asked to stop and kept what it had."""


def run_demo(recipe: DemoConfig, device: str, say: Callable[[str], None]) -> DemoResult:
    """Run every stage that is not finished; `say` is called with a line before each.

    Raises `InvalidInput` where the output folder holds a demo of another recipe, other `RRCMError`s where a stage
    cannot go on, and `KeyboardInterrupt` where it was asked to stop.
    """
    folder = Path(recipe.output)
    _open(recipe, folder)
    stages = Stages(2 + len(ENCODERS) * 2 * len(recipe.sigmas) + 1, folder / "stages.json", say)
    with stages.stage("shards of handwritten digits"):
        _build_shards(recipe, folder / "shards")
    with join_world(device) as world:
        with stages.stage("pre-train"):
            pretrain = _completed(recipe.pretrain, recipe, "pretrain", data=_shards(recipe.pretrain.data, folder))
            _train(prepare_pretraining(pretrain, world), world)
        for encoder, sigma in itertools.product(ENCODERS, recipe.sigmas):
            with stages.stage(f"fine-tune at σ {sigma:g}, {encoder}"):
                _train(prepare_finetuning(_finetune_recipe(recipe, encoder, sigma), world), world)
            with stages.stage(f"certify at σ {sigma:g}, {encoder}"):
                certify(_certify_recipe(recipe, encoder, sigma), world.device)
    with stages.stage("report"):
        report = _report(recipe, folder)
    write_json(folder / "summary.json", _summary(recipe, report, stages.seconds))
    return DemoResult(folder / "report" / "report.html", folder / "summary.json")


class Stages:
    """Says which stage of how many begins, and keeps how long each took, over all starts of the demo."""

    def __init__(self, total: int, file: Path, say: Callable[[str], None]) -> None:
        self._total, self._file, self._say, self._begun = total, file, say, 0
        self.seconds: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
        """By name of the stage."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """One stage, also if it does not come to its end."""
        self._begun += 1
        self._say(f"[{self._begun}/{self._total}] {name}")
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - start, 1)
            write_json(self._file, self.seconds)


def _open(recipe: DemoConfig, folder: Path) -> None:
    stored = folder / "recipe.yaml"
    if stored.exists() and (changed := differences(stored.read_text(), recipe, ("output", "radii"))):
        raise InvalidInput(f"{folder} holds a demo of another recipe ({'; '.join(changed)}): give another output")
    write_text(stored, dump_recipe(recipe))


def _train(training: Training, world: World) -> None:
    if train(training, world).interrupted:
        raise Interrupted


def _build_shards(recipe: DemoConfig, shards: Path) -> None:
    """As a user would, with the command: the tool that builds shards stands beside this package, not below it."""
    for split in ("train", "held-out"):
        if (shards / split / "index.json").exists():
            continue
        command = [
            *(sys.executable, "-m", "shards", "build", "digits", str(shards / split), "--split", split),
            *("--held-out", str(recipe.held_out), "--size", str(recipe.image_size), "--seed", str(recipe.seed)),
        ]
        if code := subprocess.run(command, check=False).returncode:
            raise RunFailure(f"`python -m shards build digits` ended with exit code {code}")


def _folder_name(encoder: str) -> str:
    return encoder.replace(" ", "-")


def _shards(data: Any, folder: Path) -> dict[str, Any]:
    return {**data.model_dump(), "train": str(folder / "shards/train"), "held_out": str(folder / "shards/held-out")}


def _completed(nested: Recipe, recipe: DemoConfig, folder: str, **values: Any) -> Recipe:
    """The nested recipe with the demo's seed and folders, validated anew."""
    output = str(Path(recipe.output) / folder)
    given = {**nested.model_dump(), "seed": recipe.seed, "name": folder, "output": output, **values}
    return type(nested).model_validate(given)


def _finetune_recipe(recipe: DemoConfig, encoder: str, sigma: float) -> FinetuneConfig:
    folder, start_from = Path(recipe.output), ENCODERS[encoder]
    return _completed(
        recipe.finetune,
        recipe,
        f"{_folder_name(encoder)}/sigma_{sigma:g}",
        sigma=sigma,
        start_from=str(folder / start_from) if start_from else None,
        data=_shards(recipe.finetune.data, folder),
    )


def _certify_recipe(recipe: DemoConfig, encoder: str, sigma: float) -> CertifyConfig:
    """All σ of an encoder go into one ledger."""
    folder = Path(recipe.output)
    return _completed(
        recipe.certify,
        recipe,
        f"{_folder_name(encoder)}/certificates",
        data=str(folder / "shards/held-out"),
        classifiers=[{"sigma": sigma, "checkpoint": str(folder / _folder_name(encoder) / f"sigma_{sigma:g}")}],
    )


def _report(recipe: DemoConfig, folder: Path) -> Report:
    sources = [Source(folder / _folder_name(name) / "certificates", name) for name in ENCODERS]
    return build_report(
        sources,
        recipe.radii,
        folder / "report",
        title="rRCM on handwritten digits",
        dataset="none",
        notes=[
            f"scikit-learn's real handwritten digits, resized from 8×8 to {recipe.image_size}×{recipe.image_size} "
            "pixels; both encoders had the same fine-tuning, only one was pre-trained."
        ],
    )


def _summary(recipe: DemoConfig, report: Report, seconds: dict[str, float]) -> dict[str, Any]:
    """Per encoder and σ: acr, certified_accuracy by radius, seconds of fine-tuning and certification."""
    encoders: dict[str, dict[str, Any]] = {encoder: {} for encoder in ENCODERS}
    for row in report.document()["rows"]:
        place = f"at σ {row['sigma']:g}, {row['name']}"
        encoders[row["name"]][f"{row['sigma']:g}"] = {
            **{key: row[key] for key in ("acr", "certified_accuracy", "abstain", "images")},
            "seconds": round(seconds[f"fine-tune {place}"] + seconds[f"certify {place}"], 1),
        }
    return {
        "seed": recipe.seed,
        "seconds": round(sum(seconds.values()), 1),
        "stages": seconds,
        "encoders": encoders,
    }
