"""Options that several commands share."""

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Precision(StrEnum):
    """What a network computes in."""

    FP32 = "fp32"
    BF16 = "bf16"


def finite(value: float | None) -> float | None:
    """An option's callback: refuses infinity, which no lower bound does."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter("Input should be finite")
    return value


RecipeArgument = Annotated[
    str, typer.Argument(help="Recipe: a YAML file, or a name such as imagenet/pretrain-b.", show_default=False)
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]…", help="Change keys of the recipe, e.g. training.batch=512.", show_default=False
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the resolved recipe, sizes and costs, and stop.", show_default=False)
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
GpusOption = Annotated[int, typer.Option("--gpus", min=1, help="With --dry-run: how many GPUs to reckon with.")]
GpuKindOption = Annotated[str, typer.Option("--gpu", help="With --dry-run: which GPUs to reckon with.")]
ResumeOption = Annotated[
    str, typer.Option("--resume", help="auto: go on from the newest good checkpoint; never: refuse a used folder.")
]
AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="KEY",
        help="Go on with a run whose recipe differs in this key, or in the keys below it; may be given several times.",
        show_default=False,
    ),
]
CheckpointArgument = Annotated[
    Path, typer.Argument(help="Run folder, checkpoint folder, or weights file of ours.", show_default=False)
]
NetworkOption = Annotated[
    str | None,
    typer.Option(
        help="online, target, an average as average-0.999, or model.",
        show_default="the only one that CHECKPOINT holds",
    ),
]
BatchOption = Annotated[int, typer.Option("--batch", min=1, help="Images that pass the network together.")]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=0, help="Decoding processes; 0: this one.", show_default="the recipe's")
]
PrecisionOption = Annotated[
    Precision | None, typer.Option("--precision", help="bf16 is autocast.", show_default="what it was trained in")
]
