"""The whole pipeline on scikit-learn's handwritten digits: shards, pre-training, fine-tuning, certification, report.

The output folder holds

    shards/train, shards/held-out        made by `python -m shards build digits`
    pretrain/                            the pre-training run
    pre-trained/sigma_0.25/ …            a fine-tuning run per σ, from the pre-trained encoder
    from-scratch/sigma_0.25/ …           the same fine-tuning from a fresh encoder
    pre-trained/certificates, from-scratch/certificates
    report/report.html                   the page
    summary.json                         per encoder and σ: acr, certified_accuracy by radius, seconds

Every stage is the real one, at the size of digits; run again, the demo goes on where it stopped.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rrcm_dist.certification.run import certify
from rrcm_dist.config.schema import CertifyConfig, DemoConfig, FinetuneConfig, PretrainConfig
from rrcm_dist.distributed.world import World, join_world
from rrcm_dist.errors import RunFailure
from rrcm_dist.files import write_json
from rrcm_dist.reporting.certificates import Source
from rrcm_dist.reporting.report import Report, build_report
from rrcm_dist.training.finetuning import prepare_finetuning
from rrcm_dist.training.loop import Training, train
from rrcm_dist.training.pretraining import prepare_pretraining

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

    Raises `RRCMError` where a stage cannot go on and `KeyboardInterrupt` where it was asked to stop.
    """
    start = time.monotonic()
    folder = Path(recipe.output)
    stages = Stages(2 + len(ENCODERS) * (len(recipe.sigmas) + 1) + 1, say)
    stages.begin("shards of handwritten digits")
    _build_shards(recipe, folder / "shards")
    with join_world(device) as world:
        stages.begin("pre-train")
        pretrain = _completed(recipe.pretrain, recipe, "pretrain", data=_shards(recipe.pretrain.data, folder))
        _train(prepare_pretraining(pretrain, world), world)
        for name, start_from in ENCODERS.items():
            for sigma in recipe.sigmas:
                stages.begin(f"fine-tune at σ {sigma:g}, {name}")
                _train(prepare_finetuning(_finetune_recipe(recipe, name, start_from, sigma), world), world)
            stages.begin(f"certify, {name}")
            certify(_certify_recipe(recipe, name), world.device)
    stages.begin("report")
    report = _report(recipe, folder)
    write_json(folder / "summary.json", _summary(recipe, report, stages.seconds(), time.monotonic() - start))
    return DemoResult(folder / "report" / "report.html", folder / "summary.json")


class Stages:
    """Says which stage of how many begins, and remembers how long each took."""

    def __init__(self, total: int, say: Callable[[str], None]) -> None:
        self._total, self._say = total, say
        self._started: list[tuple[str, float]] = []

    def begin(self, name: str) -> None:
        """The stage before is over; `name` begins."""
        self._started.append((name, time.monotonic()))
        self._say(f"[{len(self._started)}/{self._total}] {name}")

    def seconds(self) -> dict[str, float]:
        """Seconds of each stage so far."""
        ends = [begun for _, begun in self._started[1:]] + [time.monotonic()]
        return {name: round(end - begun, 1) for (name, begun), end in zip(self._started, ends, strict=True)}


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


def _finetune_recipe(recipe: DemoConfig, name: str, start_from: str | None, sigma: float) -> FinetuneConfig:
    folder = Path(recipe.output)
    return _completed(
        recipe.finetune,
        recipe,
        f"{_folder_name(name)}/sigma_{sigma:g}",
        sigma=sigma,
        start_from=str(folder / start_from) if start_from else None,
        data=_shards(recipe.finetune.data, folder),
    )


def _certify_recipe(recipe: DemoConfig, name: str) -> CertifyConfig:
    folder = Path(recipe.output)
    runs = folder / _folder_name(name)
    return _completed(
        recipe.certify,
        recipe,
        f"{_folder_name(name)}/certificates",
        data=str(folder / "shards/held-out"),
        classifiers=[{"sigma": sigma, "checkpoint": str(runs / f"sigma_{sigma:g}")} for sigma in recipe.sigmas],
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


def _summary(recipe: DemoConfig, report: Report, stages: dict[str, float], seconds: float) -> dict[str, Any]:
    rows = report.document()["rows"]
    return {
        "seed": recipe.seed,
        "seconds": round(seconds, 1),
        "stages": stages,
        "encoders": {
            name: {f"{row['sigma']:g}": dict(_row_summary(row, stages, name)) for row in rows if row["name"] == name}
            for name in ENCODERS
        },
    }


def _row_summary(row: dict[str, Any], stages: dict[str, float], name: str) -> Iterator[tuple[str, Any]]:
    yield "acr", row["acr"]
    yield "certified_accuracy", row["certified_accuracy"]
    yield "images", row["images"]
    yield "abstain", row["abstain"]
    yield "seconds", stages[f"fine-tune at σ {row['sigma']:g}, {name}"]
