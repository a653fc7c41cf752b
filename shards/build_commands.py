"""`python -m shards build …`: one command per kind of source."""

import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rrcm_dist.errors import InvalidInput
from rrcm_dist.files import gigabytes

if TYPE_CHECKING:
    from shards.building import Options
    from shards.source import Source

DEFAULT_QUALITY = 95

app = typer.Typer(
    help="Make a dataset of shards from images. Ended early, the same command goes on from the finished shards.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


class Order(StrEnum):
    """How samples follow each other."""

    SHUFFLED = "shuffled"
    SORTED = "sorted"


class Split(StrEnum):
    """Of CIFAR-10."""

    TRAIN = "train"
    TEST = "test"


class DigitsSplit(StrEnum):
    """Of the handwritten digits."""

    TRAIN = "train"
    HELD_OUT = "held-out"


OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the dataset; made if need be.")]
OrderOption = Annotated[
    Order | None,
    typer.Option(
        help="shuffled: every shard holds all classes, for training. sorted: the source's own order, which counts of "
        "'every k-th image' go by. If not given: sorted for --split test and held-out, else shuffled.",
        show_default=False,
    ),
]
SeedOption = Annotated[int, typer.Option(help="Of the shuffled order.")]
SizeOption = Annotated[int, typer.Option(help="Most samples in a shard; they are dealt evenly.", min=1)]
ResizeOption = Annotated[
    int | None,
    typer.Option(
        metavar="SHORT_SIDE",
        min=8,
        help="Shrink images whose short side is longer than this, upright, as JPEG. Without it every file's bytes pass "
        "through untouched.",
        show_default=False,
    ),
]
QualityOption = Annotated[
    int | None, typer.Option(min=1, max=100, help="JPEG quality with --resize; 95 if not given.", show_default=False)
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Processes, one a core if not given. The result is the same for any number.", show_default=False
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Replace the finished dataset, or the unfinished build of something else, at OUT."),
]


@app.command("imagefolder")
def imagefolder_command(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder that holds a folder of images per class.")],
    out: OutArgument,
    order: OrderOption = None,
    seed: SeedOption = 0,
    samples_per_shard: SizeOption = 1000,
    resize: ResizeOption = None,
    quality: QualityOption = None,
    jobs: JobsOption = None,
    force: ForceOption = False,
) -> None:
    """Build from SOURCE/CLASS/…/IMAGE, as ImageNet is unpacked.

    Images that cannot be read are listed in OUT/quarantine.tsv and left out. For a validation set choose the sorted
    order: classes by name, images by name, as torchvision's ImageFolder has them.
    """
    from shards.image_folder import image_folder

    options = _options(order or Order.SHUFFLED, seed, samples_per_shard, resize, quality)
    _build(lambda: image_folder(source), out, options, {"source": "imagefolder"}, jobs, force, source)


@app.command("cifar10")
def cifar10_command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="Folder with the official python batches, or with CLASS or SPLIT/CLASS folders."
        ),
    ],
    out: OutArgument,
    split: Annotated[Split, typer.Option(help="Which images.")] = Split.TRAIN,
    order: OrderOption = None,
    seed: SeedOption = 0,
    samples_per_shard: SizeOption = 1000,
    jobs: JobsOption = None,
    force: ForceOption = False,
) -> None:
    """Build from CIFAR-10. Official batches become PNG: every pixel is exact, and sorted means their own order."""
    from shards.cifar10 import cifar10

    default = Order.SHUFFLED if split is Split.TRAIN else Order.SORTED
    options = _options(order or default, seed, samples_per_shard, None, None)
    about = {"source": "cifar10", "split": split.value}
    _build(lambda: cifar10(source, split.value), out, options, about, jobs, force, source)


@app.command("digits")
def digits_command(
    out: OutArgument,
    split: Annotated[DigitsSplit, typer.Option(help="Which images.")] = DigitsSplit.TRAIN,
    held_out: Annotated[
        int, typer.Option(help="How many of the 1797 images are held out; the same for both splits.")
    ] = 360,
    size: Annotated[int, typer.Option(help="Pixels a side; the originals are 8×8.")] = 32,
    order: OrderOption = None,
    seed: Annotated[int, typer.Option(help="Of the split and of the shuffled order.")] = 0,
    samples_per_shard: SizeOption = 1000,
    jobs: JobsOption = None,
    force: ForceOption = False,
) -> None:
    """Build from scikit-learn's handwritten digits: 1797 small real images that come with that package."""
    from shards.digits import digits

    default = Order.SHUFFLED if split is DigitsSplit.TRAIN else Order.SORTED
    options = _options(order or default, seed, samples_per_shard, None, None)
    about = {"source": "digits", "split": split.value, "held_out": held_out, "size": size, "split_seed": seed}
    _build(lambda: digits(held_out, split.value, size, seed), out, options, about, jobs, force)


def _options(order: Order, seed: int, samples_per_shard: int, resize: int | None, quality: int | None) -> "Options":
    from shards.building import Options
    from shards.images import Resize

    if quality is not None and resize is None:
        raise InvalidInput("--quality goes with --resize: without it no image is encoded anew")
    shrink = None if resize is None else Resize(resize, DEFAULT_QUALITY if quality is None else quality)
    return Options(order.value, seed, samples_per_shard, shrink)


def _build(
    listed: Callable[[], "Source"],
    out: Path,
    options: "Options",
    about: Mapping[str, Any],
    jobs: int | None,
    force: bool,
    source_folder: Path | None = None,
) -> None:
    from shards.build_folder import QUARANTINE_FILE, check_target
    from shards.building import build
    from shards.workers import available_cores

    check_target(out, force, source_folder)
    start = time.monotonic()
    source = listed()
    for note in source.notes:
        typer.echo(f"note: {note}", err=True)
    built = build(source, out, options, about, jobs or available_cores(), force)
    seconds = time.monotonic() - start
    kept = f" ({built.kept_shards} of them from an earlier run)" if built.kept_shards else ""
    typer.echo(
        f"{out}: {built.samples} samples of {len(source.classes)} classes in {built.shards} shards{kept}, "
        f"{gigabytes(built.bytes)}, {seconds:.1f} s"
    )
    if built.quarantined:
        typer.echo(f"{built.quarantined} images could not be read and were left out: see {out / QUARANTINE_FILE}")
