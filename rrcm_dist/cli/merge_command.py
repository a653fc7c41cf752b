"""`rrcm merge`: one ledger of several."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    output: Annotated[
        Path, typer.Argument(help="Folder to make the merged ledger in, or its name, ending in .sqlite.")
    ],
    ledgers: Annotated[
        list[Path], typer.Argument(metavar="LEDGER LEDGER…", help="Ledgers, or output folders of rrcm certify.")
    ],
) -> None:
    """Join ledgers of one run that were made on different machines: other images, noise levels or blocks in each.

    The ledgers are left as they are. They must be of one run: the same seed, n0, n, alpha, block, images, kind of
    device and precision, the same weights at each noise level, and the same counts of every block that two of them
    have; else nothing is written, and what differs is said.

    ```sh
    rrcm merge runs/all runs/machine-a runs/machine-b
    ```
    """
    from rrcm_dist.certification.ledger.merge import merge_ledgers
    from rrcm_dist.certification.ledger.place import LEDGER_FILE, ledger_at

    path = output if output.suffix == ".sqlite" else output / LEDGER_FILE
    merged = merge_ledgers(path, [ledger_at(ledger) for ledger in ledgers])
    repeated = f", {merged.repeated:,} of them in several" if merged.repeated else ""
    levels = "1 noise level" if merged.sigmas == 1 else f"{merged.sigmas} noise levels"
    typer.echo(f"{merged.blocks:,} blocks{repeated}: {merged.images:,} images, {levels}")
    typer.echo(f"ledger: {merged.ledger}")
