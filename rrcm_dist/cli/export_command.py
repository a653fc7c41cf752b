"""`rrcm export`: weights out, for use without this project."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rrcm_dist.cli.import_command import Network
from rrcm_dist.cli.options import DeviceOption
from rrcm_dist.errors import InvalidInput


class Format(StrEnum):
    """Of what is written."""

    SAFETENSORS = "safetensors"
    TORCH = "torch"


SUFFIXES = {Format.SAFETENSORS: ".safetensors", Format.TORCH: ".pt2"}


def command(
    checkpoint: Annotated[Path, typer.Argument(help="Run folder, checkpoint folder, or weights file of ours.")],
    output: Annotated[Path, typer.Option(help="File to write, or a folder for NETWORK.safetensors or NETWORK.pt2.")],
    network: Annotated[
        Network | None,
        typer.Option(help="online, target or model.", show_default="the only one that CHECKPOINT holds"),
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(
            help="safetensors: weights by name. torch: a program that torch alone runs.",
            show_default="by the suffix of --output, else safetensors",
        ),
    ] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Write a trained network for use without this project.

    ```sh
    rrcm export runs/finetune --output model.safetensors
    rrcm export runs/finetune --output classifier.pt2
    ```

    A .pt2 takes any batch size, and torch loads it alone: torch.export.load("classifier.pt2").module(). A fine-tuned
    network maps noisy [0, 1] pixels (N, 3, H, W) to logits; a pre-trained one maps noisy [-1, 1] images and their noise
    levels t (N,) to representations. It runs on the --device that it was written for.
    """
    chosen = format or next((f for f, suffix in SUFFIXES.items() if output.suffix == suffix), Format.SAFETENSORS)
    from rrcm_dist.distributed.world import choose_device
    from rrcm_dist.models.exporting import export_program, export_safetensors, weights_to_export

    file = weights_to_export(checkpoint, network)
    target = _target(output, chosen, file.stem)
    if chosen is Format.SAFETENSORS:
        export_safetensors(file, target)
        typer.echo(f"{target}: the weights of {file}")
        return
    program = export_program(file, target, choose_device(device))
    typer.echo(f"{target}: the network of {file}, as torch.export.load({str(target)!r}).module()")
    typer.echo(f"takes  {program.takes}\ngives  {program.gives}")


def _target(output: Path, chosen: Format, stem: str) -> Path:
    """The file to write; a path without a suffix, or a folder that is there, is a folder."""
    suffix = SUFFIXES[chosen]
    if output.suffix not in {"", *SUFFIXES.values()} and not output.is_dir():
        raise InvalidInput(
            f"--output {output} ends in {output.suffix}: give a file that ends in {' or '.join(SUFFIXES.values())}, "
            "or a folder"
        )
    if output.suffix in set(SUFFIXES.values()) - {suffix}:
        raise InvalidInput(f"--output {output} does not go with --format {chosen}: its suffix is {suffix}")
    target = output if output.suffix == suffix else output / f"{stem}{suffix}"
    if target.exists():
        raise InvalidInput(f"{target} exists already: name another --output, or move it away")
    return target
