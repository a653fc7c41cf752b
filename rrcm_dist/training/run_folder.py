"""A run's folder explains itself:

recipe.yaml            the resolved recipe
environment.json       versions, git commit, command, ranks, device's peak: one entry for each time the run was started
metrics.jsonl          one JSON object a line: step, samples_seen, and the metrics
checkpoints/
    latest             name of the newest checkpoint
    step-000005000/    see checkpoints.py
wandb/                 where Weights & Biases is on
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rrcm_dist.config.keys import AnyRecipe, TrainingRecipe
from rrcm_dist.config.load import dump_recipe
from rrcm_dist.errors import InvalidInput
from rrcm_dist.files import write_json, write_text
from rrcm_dist.models.checkpoint_files import own_metadata
from rrcm_dist.training.checkpointing.checkpoints import Progress
from rrcm_dist.training.watching.utilisation import DevicePeak

PACKAGES = ("rrcm-dist", "torch", "torchvision", "timm", "deepspeed", "numpy", "xformers", "webdataset")

FREE_KEYS = (
    "name", "output", "data.train", "data.held_out", "data.cache", "data.store_patience", "data.workers",
    "data.prefetch", "data.max_decode_failures", "training.micro_batch", "training.attention",
    "training.activation_checkpointing", "training.compile", "training.zero_stage", "training.persistence_threshold",
    "training.averages", "training.checkpoint", "training.keep_", "training.log_every", "training.spike",
    "training.stop_at_spike", "training.profile", "training.device_tflops", "knn.", "probe.", "evaluation.",
    "tracking.",
)  # fmt: skip
"""What may change between a run and its resumption: it does not change which run it is."""


class RunFolder:
    """The folder of one training run, on the rank that writes."""

    def __init__(self, recipe: TrainingRecipe, data_identity: str, allow: Sequence[str] = ()) -> None:
        """`allow`: keys, or beginnings of keys, in which the run that the folder holds may differ from `recipe`."""
        self.path = Path(recipe.output)
        self.checkpoints = self.path / "checkpoints"
        self._metrics, self._data = self.path / "metrics.jsonl", self.path / "data.json"
        self._starts = self.path / "environment.json"
        self._recipe, self._data_identity, self._allow = recipe, {"train": data_identity}, tuple(allow)

    def check(self) -> None:
        """Raise `InvalidInput` if the folder holds another run, naming the keys in which they differ."""
        if self.path.exists() and not self.path.is_dir():
            raise InvalidInput(f"output {self.path} is a file; name a folder")
        refuse_other_recipe(self._recipe, self._allow)
        if self._data.exists():
            self._refuse_other_data(json.loads(self._data.read_text()).get("train"), str(self.path))

    def check_checkpoint(self, checkpoint: Path, progress: Progress) -> None:
        """Raise `InvalidInput` if a checkpoint is of another run, naming the keys in which they differ.

        One that was copied here may be of another run than the folder. It may be that not every machine sees it.
        """
        file = min(checkpoint.glob("*.safetensors"), default=None)
        if file is None:
            raise InvalidInput(
                f"{checkpoint} is not seen from {platform.node()}: give an output on a disk that every rank shares"
            )
        metadata = own_metadata(file)
        if metadata is not None:
            self.check_recipe(dump_recipe(metadata.recipe), str(checkpoint))
        if progress.data:
            self._refuse_other_data(progress.data, str(checkpoint))

    def check_recipe(self, stored: str, where: str, key: str = "output") -> None:
        """Raise `InvalidInput` if a recipe (YAML), kept at the place that `key` names, is of another run.

        What an earlier start allowed counts, too: the recipe there may be older than that.
        """
        allow = [*self._allow, *(key for start in self._earlier_starts() for key in start.get("allowed", ()))]
        _refuse_differences(stored, self._recipe, allow, where, key)

    def _refuse_other_data(self, identity: str | None, where: str) -> None:
        if identity != self._data_identity["train"] and not "data.train".startswith(self._allow or ("-",)):
            raise InvalidInput(
                f"{where} holds a run on other data than {self._recipe.data.train} (other samples or shards): give "
                "another output, or the shards that it was started with; --allow data.train goes on with these"
            )

    def open(self, start_step: int, ranks: int, peak: DevicePeak) -> None:
        """Write the recipe and what this start runs on; forget metrics of steps that will be done again."""
        write_text(self.path / "recipe.yaml", dump_recipe(self._recipe))
        write_json(self._data, self._data_identity)
        tflops = None if peak.flops is None else round(peak.flops / 1e12, 4)
        device = {"device_tflops": tflops, "device_tflops_source": peak.source}
        start = {"start_step": start_step, "ranks": ranks, "allowed": list(self._allow), **device, **_environment()}
        write_json(self._starts, [*self._earlier_starts(), start])
        if self._metrics.exists():
            lines = [line for line in self._metrics.read_text().splitlines() if _step_of(line) <= start_step]
            write_text(self._metrics, "".join(line + "\n" for line in lines))

    def _earlier_starts(self) -> list[dict[str, Any]]:
        return json.loads(self._starts.read_text()) if self._starts.exists() else []

    def log(self, metrics: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with open(self._metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")


def refuse_other_recipe(recipe: TrainingRecipe, allow: Sequence[str] = ()) -> None:
    """Raise `InvalidInput` if its folder holds a run of another recipe, naming the keys in which they differ.

    `allow`: keys, or beginnings of keys, that may differ besides those that change nothing of the run.
    """
    stored = Path(recipe.output) / "recipe.yaml"
    if stored.exists():
        _refuse_differences(stored.read_text(), recipe, allow, str(recipe.output))


def _refuse_differences(
    stored: str, recipe: TrainingRecipe, allow: Sequence[str], where: str, key: str = "output"
) -> None:
    if changed := differences(stored, recipe, (*FREE_KEYS, *allow)):
        keys = " ".join(f"--allow {change.split(':')[0]}" for change in changed)
        raise InvalidInput(
            f"{where} holds a run of another recipe ({'; '.join(changed)}): give another {key}, or the recipe that "
            f"it was started with; {keys} goes on with the new values"
        )


def differences(stored: str, recipe: AnyRecipe, free_keys: tuple[str, ...] = ()) -> list[str]:
    """What differs between a stored recipe (YAML) and one in hand, key by key in words, but for the free keys.

    Keys that came into the world after the recipe was stored have their default there.
    """
    values = yaml.safe_load(stored)
    with suppress(ValidationError):  # of another version: its keys are compared as they stand
        values = type(recipe).model_validate(values).model_dump(mode="json")
    before, now = _flat(values), _flat(recipe.model_dump(mode="json"))
    return [
        f"{key}: {before.get(key)!r} there, {now.get(key)!r} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(free_keys)
    ]


def _flat(nested: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(nested, dict):
        return {prefix: nested}
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat.update(_flat(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")  # a line cut short by a crash


def _environment() -> dict[str, Any]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "host": platform.node(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "git_commit": _git_commit(),
        "process": os.getpid(),
    }


def _git_commit() -> str | None:
    """Commit of the source tree this package is imported from, with '+changes' where it was edited."""
    here = Path(__file__).resolve().parent
    try:
        asked = {"cwd": here, "capture_output": True, "text": True, "timeout": 10, "check": True}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **asked).stdout.strip()  # type: ignore[call-overload]
        changes = subprocess.run(["git", "status", "--porcelain", "-uno"], **asked).stdout.strip()  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changes else "")
