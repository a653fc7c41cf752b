"""`rrcm merge`: one ledger of several."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer


def command(
    output: Annotated[
        Path, typer.Argument(help="Folder to make the merged ledger in, or its name, ending in .sqlite.")
    ],
    ledgers: Annotated[
        list[Path],
        typer.Argument(metavar="LEDGER LEDGER…", help="Ledgers, or output folders of rrcm certify or verify."),
    ],
) -> None:
    """Join ledgers of one run that were made on different machines: other images, noise levels, ε or blocks in each.

    The ledgers are left as they are. They must be of one run: of rrcm certify the same seed, n0, n, alpha, block,
    images, kind of device and precision, the same weights at each noise level, and the same counts of every block that
    two of them have; of rrcm verify the same seed, weights, attack, images and kind of device, and the same margins.
    Else nothing is written, and what differs is said. The two kinds never share a ledger.

    ```sh
    rrcm merge runs/all runs/machine-a runs/machine-b
    ```
    """
    from rrcm_dist.certification.ledger.file import VERIFICATION_SCHEMA, schema_of
    from rrcm_dist.certification.ledger.place import LEDGER_FILE, ledger_at

    path = output if output.suffix == ".sqlite" else output / LEDGER_FILE
    inputs = [ledger_at(ledger) for ledger in ledgers]
    # The first says which kind is merged; one of the other kind among the rest is refused as it is opened.
    typer.echo(_verifications(path, inputs) if schema_of(inputs[0]) == VERIFICATION_SCHEMA else _counts(path, inputs))
    typer.echo(f"ledger: {path}")


def _counts(path: Path, inputs: Sequence[Path]) -> str:
    from rrcm_dist.certification.ledger.merge import merge_ledgers

    merged = merge_ledgers(path, inputs)
    repeated = f", {merged.repeated:,} of them in several" if merged.repeated else ""
    levels = "1 noise level" if merged.sigmas == 1 else f"{merged.sigmas} noise levels"
    return f"{merged.blocks:,} blocks{repeated}: {merged.images:,} images, {levels}"


def _verifications(path: Path, inputs: Sequence[Path]) -> str:
    from rrcm_dist.certification.ledger.merge_verifications import merge_verifications

    merged = merge_verifications(path, inputs)
    repeated = f", {merged.repeated:,} of them in several" if merged.repeated else ""
    return f"{merged.verifications:,} verifications{repeated}, at {merged.epsilons} ε"
