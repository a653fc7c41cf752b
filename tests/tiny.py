"""Small real data (scikit-learn's digits as shards) and recipes that train in seconds."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from rrcm_dist.config.load import dump_recipe
from rrcm_dist.config.schema import CertifyConfig, FinetuneConfig, PaperConfig, PretrainConfig

IMAGE_SIZE = 16
ENCODER = {"image_size": IMAGE_SIZE, "patch": 4, "width": 32, "depth": 2, "heads": 2}


def build_digits(folder: Path) -> Path:
    """Shards of digits in `folder`/train and `folder`/held-out."""
    for split in ("train", "held-out"):
        command = [sys.executable, "-m", "shards", "build", "digits", str(folder / split), "--split", split]
        subprocess.run([*command, "--size", str(IMAGE_SIZE)], check=True, capture_output=True)
    return folder


def train_here(recipe: Path, kind: str = "pretrain") -> None:
    """Train it as two ranks on this machine."""
    options = ("--ranks", "2", "--threads", "1", "--device", "cpu")
    command = [sys.executable, "-m", "cluster", "submit", kind, str(recipe), *options]
    subprocess.run(command, check=True, capture_output=True)


def pretrain_recipe(shards: Path, output: Path, **training: Any) -> PretrainConfig:
    return PretrainConfig.model_validate(
        {
            "name": "tiny",
            "output": str(output),
            "encoder": ENCODER,
            "projector": {"hidden": 32, "output": 16},
            "data": _data(shards),
            "optimizer": {"lr": 1e-3, "warmup": 1, "clip": 2.0, "weight_decay": 0.01},
            "training": {
                "steps": 8,
                "batch": 24,
                "precision": "fp32",
                "checkpoint_every": 2,
                "log_every": 1,
                **training,
            },
            "knn": {"every": 4, "bank": 100, "queries": 50, "sigmas": [0.0, 0.5]},
        }
    )


def finetune_recipe(shards: Path, output: Path, start_from: Path | None = None, **training: Any) -> FinetuneConfig:
    return FinetuneConfig.model_validate(
        {
            "name": "tiny",
            "output": str(output),
            "sigma": 0.25,
            "start_from": None if start_from is None else str(start_from),
            "encoder": ENCODER,
            "classes": 10,
            "final_norm": True,
            "consistency": 5.0,
            "data": _data(shards),
            "mixing": {"mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1},
            "optimizer": {"lr": 1e-3, "layer_decay": 0.75},
            "training": {
                "steps": 8,
                "batch": 24,
                "precision": "fp32",
                "checkpoint_every": 2,
                "log_every": 1,
                **training,
            },
            "evaluation": {"every_epochs": 1, "images": 50, "sigmas": [0.0, 0.25]},
        }
    )


def _data(shards: Path) -> dict[str, Any]:
    return {
        "train": str(shards / "train"),
        "held_out": str(shards / "held-out"),
        "streams": 12,
        "workers": 0,
    }


def certify_recipe(shards: Path, output: Path, checkpoint: Path) -> CertifyConfig:
    return CertifyConfig.model_validate(
        {
            "name": "tiny",
            "output": str(output),
            "classifiers": [{"sigma": 0.25, "checkpoint": str(checkpoint)}],
            "data": str(shards / "held-out"),
            "image_size": IMAGE_SIZE,
            "images": {"every": 40, "count": 4},
            "n0": 20,
            "n": 200,
            "block": 50,
        }
    )


def write_paper(folder: Path, shards: Path, **finetune: Any) -> Path:
    """Recipe of a paper at two σ, into `folder`/paper; `finetune` sets values at the second σ."""
    parts = {
        "pretrain": pretrain_recipe(shards, folder / "unused"),
        "finetune": finetune_recipe(shards, folder / "unused", steps=4),
        "certify": certify_recipe(shards, folder / "unused", folder / "unused"),
    }
    for name, part in parts.items():
        (folder / f"{name}.yaml").write_text(dump_recipe(part))
    stage = {"recipe": str(folder / "finetune.yaml")}
    paper = {
        "name": "tiny-paper",
        "output": str(folder / "paper"),
        "train": str(shards / "train"),
        "held_out": str(shards / "held-out"),
        "pretrain": {"recipe": str(folder / "pretrain.yaml")},
        "finetune": [{**stage, "set": {"sigma": 0.25}}, {**stage, "set": {"sigma": 0.5, **finetune}}],
        "certify": {"recipe": str(folder / "certify.yaml")},
        "title": "Tiny",
    }
    file = folder / "paper.yaml"
    file.write_text(dump_recipe(PaperConfig.model_validate(paper)))
    return file
