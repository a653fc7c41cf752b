"""`rrcm certify`."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from rrcm_dist.cli.options import (
    DeviceOption,
    DryRunOption,
    GpuKindOption,
    GpusOption,
    OverridesArgument,
    RecipeArgument,
)
from rrcm_dist.config.schema import CertifyConfig
from rrcm_dist.errors import InvalidInput

if TYPE_CHECKING:
    from rrcm_dist.certification.run import CertificationResult

WIDTH_OF_A_FILE = 160
"""Columns to print where the output is no terminal, so that no table is cut."""


def command(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    dry_run: DryRunOption = False,
    device: DeviceOption = "auto",
    radii: Annotated[
        str | None,
        typer.Option(help="ℓ2 radii of the table at the end, comma-separated.", show_default="those of rrcm report"),
    ] = None,
    gpus: GpusOption = 8,
    gpu: GpuKindOption = "A800",
) -> None:
    """Certify images by randomized smoothing (Cohen et al. 2019), at every noise level of the recipe.

    rrcm certify cifar10/certify-b data=SHARDS output=RUN

    Any torch classifier can be certified: a function without arguments, or with one called sigma, that returns a
    torch.nn.Module from float32 (N, 3, H, W), [0, 1] pixels plus noise, to logits. Modules in this folder are found:

    rrcm certify cifar10/certify-b data=SHARDS output=RUN 'classifiers=[{sigma: 0.25, function: my_nets:resnet}]'

    OUTPUT/ledger.sqlite holds every count, OUTPUT/sigma_0.25.tsv … one log a noise level. Ended at any time, by any
    means, the same command goes on from there; with a larger n, more images or another noise level it draws only what
    is missing. `rrcm report OUTPUT` makes tables and a page.
    """
    from rrcm_dist.config.load import load_recipe

    loaded = load_recipe(recipe, overrides or (), kind="certify")
    assert isinstance(loaded, CertifyConfig)
    chosen = _radii(radii, loaded)
    if dry_run:
        from rrcm_dist.cli.dry_run import show_costs

        show_costs(loaded, gpus, gpu)
        return
    from rrcm_dist.certification.run import certify
    from rrcm_dist.distributed.world import choose_device

    _show(certify(loaded, choose_device(device)), chosen)


def _radii(text: str | None, recipe: CertifyConfig) -> list[float] | None:
    from rrcm_dist.certification.statistics.bounds import check_radii

    if text is None:
        return None
    try:
        radii = [float(piece) for piece in text.split(",") if piece.strip()]
    except ValueError as error:
        raise InvalidInput(f"--radii {text!r} is not a list of numbers, as in 0,0.25,0.5") from error
    check_radii(radii, recipe.n, recipe.alpha, [c.sigma for c in recipe.classifiers])
    return radii


def _show(result: "CertificationResult", radii: list[float] | None) -> None:
    from rich.console import Console

    from rrcm_dist.reporting.certificates import Source
    from rrcm_dist.reporting.report import DEFAULT_RADII, build_report
    from rrcm_dist.reporting.tables import terminal_tables

    console = Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)
    report = build_report([Source(result.ledger)], DEFAULT_RADII if radii is None else radii, dataset="none")
    console.print(
        "Certified accuracy in % at ℓ2 radius (±: the wider half of the 95 % Wilson interval)", highlight=False
    )
    for table in terminal_tables(report.summary):
        console.print(table)
    for level in result.levels:
        seconds = sum(c.seconds for c in level.certificates) / len(level.certificates)
        console.print(f"σ {level.sigma:g}: {seconds:.3g} s per image, {level.log}", highlight=False, soft_wrap=True)
    console.print(f"ledger: {result.ledger}", highlight=False, soft_wrap=True)
