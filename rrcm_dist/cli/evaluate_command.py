"""`rrcm evaluate`: how well held-out images are classified by what a checkpoint has learned."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rrcm_dist.cli.options import (
    BatchOption,
    CheckpointArgument,
    DeviceOption,
    NetworkOption,
    PrecisionOption,
    WorkersOption,
)
from rrcm_dist.config.parts import KnnConfig
from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.errors import InvalidInput

if TYPE_CHECKING:
    from rrcm_dist.evaluation.checkpoint import Evaluation, Images, Settings
    from rrcm_dist.evaluation.trained import Trained

FORMAT, VERSION = "rrcm-dist evaluation", 1
WIDTH_OF_A_FILE = 160
"""Columns to print where the output is no terminal, so that no table is cut."""


def command(
    checkpoint: CheckpointArgument,
    data: Annotated[
        str | None,
        typer.Option(metavar="SHARDS", help="Images to classify.", show_default="the recipe's data.held_out"),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            metavar="SHARDS",
            help="Images that neighbours and probe learn from.",
            show_default="the recipe's data.train; none for a fine-tuned checkpoint",
        ),
    ] = None,
    network: NetworkOption = None,
    sigmas: Annotated[
        str | None,
        typer.Option(
            help="Noise levels, comma-separated, standard deviations on [0, 1] pixels; 0 is clean.",
            show_default="the recipe's",
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Images to classify, evenly spaced.", show_default="the recipe's")
    ] = None,
    bank: Annotated[
        int | None,
        typer.Option(min=1, help="Images to learn from, evenly spaced.", show_default="the recipe's, or 50000"),
    ] = None,
    probe: Annotated[bool, typer.Option(help="Train a linear probe, too.")] = True,
    precision: PrecisionOption = None,
    device: DeviceOption = "auto",
    batch: BatchOption = 256,
    workers: WorkersOption = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the noise and the probe's split.", show_default="the recipe's")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.json", help="Write the results.", show_default="none is written"),
    ] = None,
) -> None:
    """Classify held-out images by what a checkpoint has learned, clean and under noise.

    ```sh
    rrcm evaluate runs/pretrain --network online
    rrcm evaluate runs/finetune --sigmas 0,0.25 --images 10000 -o results.json
    rrcm evaluate online.safetensors --data SHARDS/val --train SHARDS/train
    ```

    A pre-trained network is scored by weighted k-nearest neighbours (knn: the number that training logs) and by a
    linear probe (probe: logistic regression, its penalty chosen on a fifth of the training images). Both learn from
    clean training images. A fine-tuned network is scored by its own answers (accuracy), one draw of noise per image and
    σ; with --train by the other two as well. Intervals are Wilson's, at 95 %, for the choice of images.
    """
    from rrcm_dist.distributed.world import choose_device
    from rrcm_dist.evaluation.checkpoint import evaluate
    from rrcm_dist.evaluation.trained import load_trained

    trained = load_trained(checkpoint, network, choose_device(device), precision)
    settings = _settings(trained.recipe, sigmas, probe, seed, batch, workers)
    held_out, learned_from = _images(trained.recipe, data, train, images, bank)
    evaluation = evaluate(trained, held_out, learned_from, settings)
    results = _as_json(trained, held_out, learned_from, settings, evaluation)
    _print(results)
    if output is not None:
        from rrcm_dist.files import write_json

        write_json(output, results)
        typer.echo(f"results: {output}")


def _settings(
    recipe: PretrainConfig | FinetuneConfig,
    sigmas: str | None,
    probe: bool,
    seed: int | None,
    batch: int,
    workers: int | None,
) -> "Settings":
    from rrcm_dist.evaluation.checkpoint import Settings

    usual = recipe.knn.sigmas if isinstance(recipe, PretrainConfig) else recipe.evaluation.sigmas
    return Settings(
        sigmas=usual if sigmas is None else _levels(sigmas),
        knn=recipe.knn if isinstance(recipe, PretrainConfig) else KnnConfig(),
        probe=probe,
        seed=recipe.seed if seed is None else seed,
        batch=batch,
        workers=recipe.data.workers if workers is None else workers,
    )


def _levels(text: str) -> tuple[float, ...]:
    try:
        levels = tuple(dict.fromkeys(float(piece) for piece in text.split(",") if piece.strip()))
    except ValueError as error:
        raise InvalidInput(f"--sigmas {text!r} is not a list of numbers, as in 0,0.25,0.5") from error
    if not levels or not all(0 <= level < float("inf") for level in levels):
        raise InvalidInput(f"--sigmas {text!r} must be at least one number, none below 0, as in 0,0.25,0.5")
    return levels


def _images(
    recipe: PretrainConfig | FinetuneConfig, data: str | None, train: str | None, images: int | None, bank: int | None
) -> "tuple[Images, Images | None]":
    from rrcm_dist.evaluation.checkpoint import Images
    from rrcm_dist.training.samples import named_index

    held_out = data or recipe.data.held_out
    if held_out is None:
        raise InvalidInput("the checkpoint's recipe names no held-out shards: name some by --data")
    if isinstance(recipe, PretrainConfig):
        learned_from, usual_images, usual_bank = train or recipe.data.train, recipe.knn.queries, recipe.knn.bank
    else:
        learned_from, usual_images, usual_bank = train or "", recipe.evaluation.images, KnnConfig().bank
    queries = Images(named_index("--data", held_out, recipe.data), images or usual_images)
    if not learned_from:
        return queries, None
    return queries, Images(named_index("--train", learned_from, recipe.data), bank or usual_bank)


def _as_json(
    trained: "Trained", held_out: "Images", train: "Images | None", settings: "Settings", evaluation: "Evaluation"
) -> dict[str, Any]:
    from rrcm_dist.data.index import content_identity
    from rrcm_dist.reporting.measures.estimates import wilson_interval

    def score(correct: int, images: int) -> dict[str, float]:
        low, high = wilson_interval(correct, images)
        return {"accuracy": correct / images, "low": float(low), "high": float(high)}

    def shards(images: "Images") -> dict[str, str]:
        return {"shards": images.index.place, "identity": content_identity(images.index)}

    learned: dict[str, Any] = {}
    if train is not None:
        learned = {"train": {**shards(train), "images": evaluation.bank}, "neighbours": settings.knn.neighbours}
        learned |= {"temperature": settings.knn.temperature, "probe_penalty": evaluation.penalty}
    return {
        "format": FORMAT,
        "version": VERSION,
        "checkpoint": str(trained.file),
        "network": trained.name,
        "kind": trained.recipe.kind,
        "name": trained.recipe.name,
        "precision": trained.precision,
        "device": trained.device.type,
        "seed": settings.seed,
        "data": {**shards(held_out), "left_out": evaluation.left_out},
        **learned,
        "results": [
            {"measure": s.measure, "sigma": s.sigma, "correct": s.correct, "images": s.images}
            | score(s.correct, s.images)
            for s in evaluation.scores
        ],
    }


def _print(results: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("measure", no_wrap=True)
    for column in ("σ", "correct %", "95 % interval", "images"):
        table.add_column(column, justify="right", no_wrap=True)
    rows: Sequence[dict[str, Any]] = results["results"]
    for row in rows:
        low, high = 100 * row["low"], 100 * row["high"]
        cells = (f"{row['sigma']:g}", f"{100 * row['accuracy']:.2f}", f"{low:.2f} to {high:.2f}", str(row["images"]))
        table.add_row(row["measure"], *cells)
    console = Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)
    console.print(f"{results['network']} of {results['checkpoint']}", highlight=False, soft_wrap=True)
    console.print(table)
    if left_out := results["data"]["left_out"]:
        console.print(f"{left_out} images could not be decoded and are left out", highlight=False)
