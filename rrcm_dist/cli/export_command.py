"""`rrcm export`: weights out, for use without this project."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rrcm_dist.cli.options import CheckpointArgument, DeviceOption, NetworkOption, finite
from rrcm_dist.config.schema import FinetuneConfig
from rrcm_dist.errors import InvalidInput, RRCMError

if TYPE_CHECKING:
    from rrcm_dist.models.checkpoint_files import OwnMetadata


class Format(StrEnum):
    """Of what is written."""

    SAFETENSORS = "safetensors"
    TORCH = "torch"
    TIMM = "timm"
    ONNX = "onnx"


SUFFIXES = {Format.SAFETENSORS: ".safetensors", Format.TORCH: ".pt2", Format.ONNX: ".onnx"}
"""timm's is a folder."""
AT_ONE_LEVEL = (Format.TIMM, Format.ONNX)
PATIENCE_SECONDS = 20.0
"""With a store that is asked for the names of classes."""


def command(
    checkpoint: CheckpointArgument,
    output: Annotated[
        Path,
        typer.Option(help="File to write, or a folder for NETWORK.SUFFIX; with --format timm the folder to write."),
    ],
    network: NetworkOption = None,
    format: Annotated[
        Format | None,
        typer.Option(
            help="safetensors: weights by name. torch: a program that torch alone runs. timm: a folder that timm "
            "loads. onnx: for ONNX Runtime and others.",
            show_default="by the suffix of --output, else safetensors",
        ),
    ] = None,
    encoder: Annotated[
        bool, typer.Option("--encoder", help="The encoder alone, without a projector or a head.")
    ] = False,
    sigma: Annotated[
        float | None,
        typer.Option(
            min=0,
            callback=finite,
            help="With timm or onnx: the noise to be used under, standard deviation on [0, 1] pixels; 0 is clean.",
            show_default="that of the fine-tuning, else 0",
        ),
    ] = None,
    classes_of: Annotated[
        str | None,
        typer.Option(
            metavar="SHARDS",
            help="With timm: shards whose names of classes to write.",
            show_default="the recipe's training shards, if they are there",
        ),
    ] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Write a trained network for use without this project.

    ```sh
    rrcm export runs/finetune --output model.safetensors
    rrcm export runs/finetune --output classifier.pt2
    rrcm export runs/finetune --output classifier.onnx
    rrcm export runs/pretrain --network target --format timm --output encoder --sigma 0.25
    ```

    A .pt2 takes any batch size, and torch loads it alone: torch.export.load("classifier.pt2").module(). A fine-tuned
    network maps noisy [0, 1] pixels (N, 3, H, W) to logits; an encoder maps noisy [-1, 1] images and their noise
    levels t (N,) to representations. It runs on the --device that it was written for.

    The timm folder is in Hugging Face's layout: timm.create_model("local-dir:encoder", pretrained=True) loads it. It
    takes images preprocessed as its config says, to [-1, 1], plus noise of 2 sigma. An .onnx takes [0, 1] pixels plus
    noise of sigma, any batch size; writing it needs pip install 'rrcm-dist[onnx]'. Each is compared with the network
    before it is kept.
    """
    chosen = format or next((f for f, suffix in SUFFIXES.items() if output.suffix == suffix), Format.SAFETENSORS)
    if sigma is not None and chosen not in AT_ONE_LEVEL:
        raise InvalidInput(f"--sigma goes with --format timm and onnx; {chosen} holds every noise level, or its own")
    if classes_of is not None and chosen is not Format.TIMM:
        raise InvalidInput(f"--classes-of goes with --format timm; {chosen} has no place for names of classes")
    from rrcm_dist.models.checkpoint_files import chosen_weights, require_own
    from rrcm_dist.models.representation import usual_sigma

    file = chosen_weights(checkpoint, network)
    target = _target(output, chosen, file.stem)
    metadata = require_own(file)
    level = usual_sigma(metadata.recipe) if sigma is None else sigma
    if chosen is Format.TIMM:
        _export_timm(file, target, level, metadata, encoder, classes_of)
    else:
        _export_file(file, target, chosen, level, encoder, device)


def _export_timm(
    file: Path, target: Path, sigma: float, metadata: "OwnMetadata", encoder: bool, classes_of: str | None
) -> None:
    from rrcm_dist.models.exporting_timm import export_timm

    classifies = isinstance(metadata.recipe, FinetuneConfig) and not encoder
    if classes_of is not None and not classifies:
        raise InvalidInput("--classes-of names the classes of a fine-tuned network, and what is written has no classes")
    names = _class_names(metadata, classes_of) if classifies else None
    export_timm(file, target, sigma, names, encoder)
    typer.echo(f'{target}: the network of {file}, as timm.create_model("local-dir:{target}", pretrained=True)')
    typer.echo(f"takes  [-1, 1] images plus noise of standard deviation {2 * sigma:g} (sigma {sigma:g})")


def _class_names(metadata: "OwnMetadata", classes_of: str | None) -> tuple[str, ...] | None:
    """Those of the shards; None where the recipe's own are not there, which is said."""
    from rrcm_dist.data.index import read_header
    from rrcm_dist.data.stores import StoreSettings

    store = StoreSettings(patience=PATIENCE_SECONDS)
    if classes_of is not None:
        return read_header(classes_of, store)["classes"]
    try:
        return read_header(metadata.recipe.data.train, store)["classes"]
    except RRCMError:
        typer.echo(
            f"the classes have no names: {metadata.recipe.data.train} cannot be read; --classes-of names other shards",
            err=True,
        )
        return None


def _export_file(file: Path, target: Path, chosen: Format, sigma: float, encoder: bool, device: str) -> None:
    if chosen is Format.SAFETENSORS:
        from rrcm_dist.models.exporting import export_safetensors

        export_safetensors(file, target, encoder)
        typer.echo(f"{target}: the weights of {file}")
        return
    if chosen is Format.ONNX:
        from rrcm_dist.models.exporting_onnx import export_onnx

        program = export_onnx(file, target, sigma, encoder)
        typer.echo(f"{target}: the network of {file}, as onnxruntime.InferenceSession({str(target)!r})")
    else:
        from rrcm_dist.distributed.world import choose_device
        from rrcm_dist.models.exporting import export_program

        program = export_program(file, target, choose_device(device), encoder)
        typer.echo(f"{target}: the network of {file}, as torch.export.load({str(target)!r}).module()")
    typer.echo(f"takes  {program.takes}\ngives  {program.gives}")


def _target(output: Path, chosen: Format, stem: str) -> Path:
    """The file, or timm's folder, to write; a file goes into a path without a suffix, or a folder that is there."""
    suffixes = set(SUFFIXES.values())
    if chosen is Format.TIMM:
        if output.suffix in suffixes:
            raise InvalidInput(f"--output {output} does not go with --format timm, which writes a folder")
        target = output
    else:
        suffix = SUFFIXES[chosen]
        if output.suffix not in {"", *suffixes} and not output.is_dir():
            *some, last = SUFFIXES.values()
            raise InvalidInput(
                f"--output {output} ends in {output.suffix}: give a file that ends in {', '.join(some)} or {last}, "
                "or a folder"
            )
        if output.suffix in suffixes - {suffix}:
            raise InvalidInput(f"--output {output} does not go with --format {chosen}: its suffix is {suffix}")
        target = output if output.suffix == suffix else output / f"{stem}{suffix}"
    if target.exists():
        raise InvalidInput(f"{target} exists already: name another --output, or move it away")
    return target
