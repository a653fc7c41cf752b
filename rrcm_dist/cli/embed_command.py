"""`rrcm embed`: representations of a dataset's images as a Parquet file."""

from pathlib import Path
from typing import Annotated

import typer

from rrcm_dist.cli.options import (
    BatchOption,
    CheckpointArgument,
    DeviceOption,
    NetworkOption,
    PrecisionOption,
    WorkersOption,
    finite,
)
from rrcm_dist.errors import InvalidInput


def command(
    checkpoint: CheckpointArgument,
    data: Annotated[str, typer.Argument(metavar="SHARDS", help="Images to represent.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.parquet", help="File to write.")],
    network: NetworkOption = None,
    sigma: Annotated[
        float | None,
        typer.Option(
            min=0,
            callback=finite,
            help="Noise added to the images, standard deviation on [0, 1] pixels; 0 is clean.",
            show_default="that of the fine-tuning, else 0",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the noise.", show_default="the recipe's")] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="So many images, evenly spaced.", show_default="all of them")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="float16 numbers: half the size.")] = False,
    precision: PrecisionOption = None,
    device: DeviceOption = "auto",
    batch: BatchOption = 256,
    workers: WorkersOption = None,
) -> None:
    """Write the representation of every image of SHARDS, with its key, label and class, as Parquet.

    ```sh
    rrcm embed runs/pretrain data/cifar10-shards/test -o test.parquet --network target
    rrcm embed runs/finetune data/cifar10-shards/test -o noisy.parquet --sigma 0.25 --half
    ```

    Columns: sample_id, key, label, class and representation, a list of as many numbers as the encoder is wide: what
    the projector, or a fine-tuned network's head, is given. An image's noise depends on seed, image and sigma alone, so
    it is that of `rrcm evaluate`. Images are read and written piece by piece; those that cannot be decoded are left
    out. Checkpoint, recipe and noise stand in the file's metadata under rrcm-dist:

    ```python
    table = pyarrow.parquet.read_table("test.parquet"); about = json.loads(table.schema.metadata[b"rrcm-dist"])
    ```
    """
    if output.suffix != ".parquet":
        raise InvalidInput(f"--output {output} must end in .parquet, the format that is written")
    if output.exists():
        raise InvalidInput(f"{output} exists already: name another --output, or move it away")
    from rrcm_dist.distributed.world import choose_device
    from rrcm_dist.evaluation.embedding import EmbeddingSettings, embed
    from rrcm_dist.evaluation.images import evenly_spaced
    from rrcm_dist.evaluation.trained import load_trained
    from rrcm_dist.models.representation import usual_sigma
    from rrcm_dist.training.samples import named_index

    trained = load_trained(checkpoint, network, choose_device(device), precision)
    recipe = trained.recipe
    index = named_index("SHARDS", data, recipe.data)
    settings = EmbeddingSettings(
        sigma=usual_sigma(recipe) if sigma is None else sigma,
        seed=recipe.seed if seed is None else seed,
        half=half,
        batch=batch,
        workers=recipe.data.workers if workers is None else workers,
    )
    done = embed(trained, index, evenly_spaced(len(index), images or len(index)), output, settings)
    left_out = f" ({done.left_out} could not be decoded and are left out)" if done.left_out else ""
    kind = "float16" if half else "float32"
    typer.echo(f"{output}: {done.images} images{left_out}, {kind} of width {trained.width}, sigma {settings.sigma:g}")
