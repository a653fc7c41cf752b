"""The reference's weights as files in the style of the release, and the recipes they belong to."""

from pathlib import Path

import torch
from golden.reference import arrays
from torch import Tensor

ENCODER = "{image_size: 16, patch: 4, width: 48, depth: 2, heads: 3}"
COMMON = "output: out, data: {train: shards, streams: 4}, optimizer: {lr: 1e-3}, training: {steps: 4, batch: 16}"
PRETRAIN = f"{{kind: pretrain, name: p, encoder: {ENCODER}, projector: {{hidden: 32, output: 24}}, {COMMON}}}"
FINETUNE = (
    f"{{kind: finetune, name: f, encoder: {ENCODER}, sigma: 0.5, start_from: null, classes: 7, final_norm: true, "
    f"consistency: 5, {COMMON}}}"
)


def released(which: str) -> dict[str, Tensor]:
    """Weights of the reference's 'online' or 'target' network under the released names."""
    return {name.removeprefix(f"{which}/"): t for name, t in arrays().items() if name.startswith(f"{which}/")}


def released_finetuned() -> dict[str, Tensor]:
    """The online network within a fine-tuned one, with a head of its own."""
    generator = torch.Generator().manual_seed(0)
    head = {
        "linear_head.weight": torch.randn(7, 48, generator=generator),
        "linear_head.bias": torch.randn(7, generator=generator),
    }
    return {**{f"base_model.{name}": tensor for name, tensor in released("online").items()}, **head}


def wrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As a data-parallel wrapper names them."""
    return {f"module.{name}": tensor for name, tensor in weights.items()}


def saved(weights: dict[str, Tensor], path: Path) -> Path:
    torch.save(weights, path)
    return path


def recipe_file(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path
