"""`rrcm import`: released weights in."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rrcm_dist.cli.options import OverridesArgument
from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.errors import InvalidInput

if TYPE_CHECKING:
    from rrcm_dist.models.importing import ImportReport


class Network(StrEnum):
    """Of a checkpoint."""

    ONLINE = "online"
    TARGET = "target"
    MODEL = "model"


def command(
    file: Annotated[Path, typer.Argument(help="Weights: .pth, .pt or .net with a state dict, or .safetensors.")],
    recipe: Annotated[
        str, typer.Option(help="Recipe of the network: a YAML file, or a name such as imagenet/pretrain-b.")
    ],
    output: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    overrides: OverridesArgument = None,
    network: Annotated[
        Network | None,
        typer.Option(
            help="Which network FILE holds: online or target (the average) of a pre-training, model of a fine-tuning.",
            show_default="by the recipe and FILE's name",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Also write what became of every key as JSON.")
    ] = None,
) -> None:
    """Turn weights under the released names (jiachenlei/rRCM) into a weights file of ours.

    Pre-trained (nnet.pth, target_model.pth, nnet_ema.pth), and fine-tuned (base_model.… and linear_head.…):

    ```sh
    rrcm import nnet.pth --recipe cifar10/pretrain-b --output online.safetensors
    rrcm import tuned.net --recipe cifar10/finetune-b-sigma0.25 --output model.safetensors
    ```

    With or without a wrapper's "module." before every name. What is written serves as start_from of `rrcm finetune`,
    as a checkpoint of `rrcm certify`, and to `rrcm evaluate`, `rrcm embed` and `rrcm export`. Every key is listed; a
    key of another shape than the recipe's, or one that the encoder lacks, is an error. Only the projector may be
    missing. No code in FILE is run.
    """
    from rrcm_dist.config.load import load_recipe
    from rrcm_dist.files import write_json

    loaded = load_recipe(recipe, overrides or ())
    if not isinstance(loaded, PretrainConfig | FinetuneConfig):
        raise InvalidInput(f"{recipe} is a {loaded.kind} recipe: weights belong to a pretrain or finetune recipe")
    from rrcm_dist.models.importing import import_weights

    result = import_weights(file, loaded, output, network)
    if report is not None:
        write_json(report, result.as_dict())
    _show(result, output, network is None)


def _show(result: "ImportReport", output: Path, guessed: bool) -> None:
    rows = [
        (key.outcome, key.released or "-", "->" if key.ours and key.released else "", key.ours or "-", str(key.shape))
        for key in result.keys
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    typer.echo(
        f"{result.count('loaded')} tensors loaded, {result.count('kept as initialised')} kept as initialised, "
        f"{result.count('not used')} not used"
    )
    if result.network != "model" and not result.has_projector:
        typer.echo("the file has no projector: an encoder alone, which is all that fine-tuning needs")
    told = f" (by the name {Path(result.source).name}; --network says otherwise)" if guessed else ""
    typer.echo(f"{output}: the {result.network} network{told if result.network != 'model' else ''}")
