"""How far a training run has come, read from its folder by any process, without torch."""

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

FIRST_STAGE = "warmup"
"""Folder of a representation warm-up within a run's."""


@dataclass(frozen=True)
class NewestCheckpoint:
    """The newest whole checkpoint; whether its files are undamaged is found out by whoever loads it."""

    name: str
    step: int
    finished: bool
    written: datetime


def newest_checkpoint(run: Path) -> NewestCheckpoint | None:
    """None where there is none yet."""
    for folder in sorted((run / "checkpoints").glob("step-*"), reverse=True):
        manifest = folder / "manifest.json"
        with suppress(OSError, ValueError, KeyError):
            progress = json.loads(manifest.read_text())["progress"]
            written = datetime.fromtimestamp(manifest.stat().st_mtime, UTC)
            return NewestCheckpoint(folder.name, progress["step"], progress["finished"], written)
    return None


def newest_step(run: Path) -> int:
    """Steps that checkpoints keep of the run, those of its first stage included; 0 where there is none."""
    newest = [newest_checkpoint(run / FIRST_STAGE), newest_checkpoint(run)]
    return sum(checkpoint.step for checkpoint in newest if checkpoint)


def current_stage(run: Path) -> Path:
    """The folder of the stage that writes: that of a representation warm-up until the main run tells of steps."""
    first = run / FIRST_STAGE
    return first if (first / "metrics.jsonl").exists() and not (run / "metrics.jsonl").exists() else run


def last_metrics(run: Path) -> dict[str, Any]:
    """The last line of metrics.jsonl that tells a speed; empty where there is none."""
    file = run / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    for line in reversed(lines):
        with suppress(ValueError):
            values = json.loads(line)
            if "images_per_second" in values:
                return values
    return {}


def samples_per_step(run: Path, metrics: dict[str, Any]) -> float:
    """The recipe's batch; where that is not at hand, what the last line of metrics has come to on the mean."""
    with suppress(OSError, KeyError, TypeError, yaml.YAMLError):
        return float(yaml.safe_load((run / "recipe.yaml").read_text())["training"]["batch"])
    return metrics["samples_seen"] / metrics["step"]


def total_steps(run: Path, logs_of_rank_0: Iterable[Path]) -> int | None:
    """Steps of the whole run: the recipe's, or, for one that counts epochs, what the progress bar says in a log.

    None before either is written.
    """
    with suppress(OSError, KeyError, TypeError, yaml.YAMLError):
        if steps := yaml.safe_load((run / "recipe.yaml").read_text())["training"]["steps"]:
            return int(steps)
    for log in filter(Path.exists, logs_of_rank_0):
        if found := re.findall(r"\d+/(\d+) steps", log.read_text(errors="replace")):
            return int(found[-1])
    return None
