"""`python -m shards verify`."""

import time
from typing import Annotated

import typer

from rrcm_dist.errors import RunFailure


def command(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder or URL of a dataset.")],
    decode: Annotated[bool, typer.Option("--decode", help="Decode every image as well (slower).")] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes, one a core if not given.", show_default=False)
    ] = None,
) -> None:
    """Compare every byte of a dataset with its index; name each problem, its shard and its sample.

    Finds changed bytes, truncated, missing and unlisted shards, and an index that disagrees with them. The exit code is
    1 where there is any problem.
    """
    from shards.verification import verify
    from shards.workers import available_cores

    start = time.monotonic()
    verified = verify(folder, decode, jobs or available_cores())
    seconds = time.monotonic() - start
    for problem in verified.problems:
        typer.echo(problem)
    if verified.problems:
        raise RunFailure(
            f"{folder} is damaged, {len(verified.problems)} problems (above): copy what is named again from where it "
            "is whole, or build the dataset again with --force"
        )
    decoded = ", every image decoded" if decode else ""
    typer.echo(
        f"{folder}: {verified.samples} samples in {verified.shards} shards are whole{decoded} "
        f"({seconds:.1f} s, {verified.samples / seconds:.0f} samples/s)"
    )
