"""`rrcm certify`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rrcm_dist.cli.options import (
    DeviceOption,
    DryRunOption,
    GpuKindOption,
    GpusOption,
    OverridesArgument,
)
from rrcm_dist.cli.ray_pool import AddressOption, CpusPerWorkerOption, DashboardOption, RayWorkersOption, chosen_pool
from rrcm_dist.config.schema import CertifyConfig
from rrcm_dist.errors import InvalidInput, RunFailure

if TYPE_CHECKING:
    from rrcm_dist.certification.run import CertificationResult

FAILURES_SHOWN = 10
WIDTH_OF_A_FILE = 160
"""Columns to print where the output is no terminal, so that no table is cut."""


def command(
    recipe: Annotated[
        str | None,
        typer.Argument(help="Recipe: a YAML file, or a name such as cifar10/certify-b.", show_default=False),
    ] = None,
    overrides: OverridesArgument = None,
    dry_run: DryRunOption = False,
    device: DeviceOption = "auto",
    workers: RayWorkersOption = None,
    address: AddressOption = None,
    cpus_per_worker: CpusPerWorkerOption = 1,
    dashboard: DashboardOption = True,
    audit: Annotated[int, typer.Option(min=0, help="Have every k-th block counted by a second worker; 0: none.")] = 0,
    radii: Annotated[
        str | None, typer.Option(help="ℓ2 radii, comma-separated: radii of the recipe.", show_default=False)
    ] = None,
    status: Annotated[
        Path | None, typer.Option(metavar="LEDGER", help="Show where a run stands, from any shell, and stop.")
    ] = None,
    gpus: GpusOption = 8,
    gpu: GpuKindOption = "A800",
) -> None:
    """Certify images by randomized smoothing (Cohen et al. 2019), at every noise level of the recipe.

    ```sh
    rrcm certify cifar10/certify-b data=SHARDS output=RUN
    ```

    Any torch classifier can be certified: a function without arguments, or with one called sigma, that returns a
    torch.nn.Module from float32 (N, 3, H, W), [0, 1] pixels plus noise, to logits. Modules in this folder are found:

    ```sh
    rrcm certify cifar10/certify-b data=SHARDS output=RUN 'classifiers=[{sigma: 0.25, function: my_nets:resnet}]'
    ```

    mode=adaptive stops each image as soon as its draws have decided every radius, with the same guarantee.

    With several GPUs, or --workers, it starts a Ray of its own on this machine; --address uses a running cluster, whose
    nodes may come and go meanwhile. OUTPUT/ledger.sqlite holds every count, OUTPUT/sigma_0.25.tsv … one log a noise
    level. Ended at any time, by any means, the same command goes on from there; with a larger n, more images or another
    noise level it draws only what is missing. `rrcm report OUTPUT` makes tables and a page, and
    `rrcm certify --status OUTPUT` tells from another shell where it stands.
    """
    if status is not None:
        _show_status(status)
        return
    if recipe is None:
        raise InvalidInput("name a recipe, such as cifar10/certify-b or my.yaml; `rrcm certify --help` says more")
    loaded = _load(recipe, [*(overrides or ()), *_radii_override(radii)])
    if dry_run:
        from rrcm_dist.cli.dry_run import show_costs

        show_costs(loaded, gpus, gpu)
        return
    from rrcm_dist.certification.run import certify
    from rrcm_dist.distributed.world import choose_device

    pool = chosen_pool(address, workers, cpus_per_worker, device, dashboard)
    result = certify(loaded, None if pool else choose_device(device), pool=pool, audit_every=audit)
    _show(result, loaded)


def _load(recipe: str, overrides: list[str]) -> CertifyConfig:
    from rrcm_dist.certification.plan import check_reach
    from rrcm_dist.config.load import load_recipe

    loaded = load_recipe(recipe, overrides, kind="certify")
    assert isinstance(loaded, CertifyConfig)
    check_reach(loaded)
    return loaded


def _radii_override(text: str | None) -> list[str]:
    if text is None:
        return []
    try:
        radii = [float(piece) for piece in text.split(",") if piece.strip()]
    except ValueError as error:
        raise InvalidInput(f"--radii {text!r} is not a list of numbers, as in 0,0.25,0.5") from error
    if not radii:
        raise InvalidInput("no radius was given: give at least one, as 0.5")
    return [f"radii={radii}"]


def _show_status(path: Path) -> None:
    from rrcm_dist.certification.status import describe_status, read_status

    print(describe_status(read_status(path)))


def _show(result: "CertificationResult", recipe: CertifyConfig) -> None:
    from rich.console import Console

    from rrcm_dist.reporting.certificates import Source
    from rrcm_dist.reporting.report import build_report
    from rrcm_dist.reporting.tables import terminal_tables

    console = Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)
    failed = [(level.sigma, image) for level in result.levels for image in level.failed]
    if any(level.certificates for level in result.levels):
        report = build_report([Source(result.ledger)], recipe.radii, dataset="none")
        console.print(
            "Certified accuracy in % at ℓ2 radius (±: the wider half of the 95 % Wilson interval)", highlight=False
        )
        for table in terminal_tables(report.summary):
            console.print(table)
    for level in result.levels:
        if level.certificates:
            seconds = sum(c.seconds for c in level.certificates) / len(level.certificates)
            console.print(
                f"σ {level.sigma:g}: {seconds:.3g} s per image on average, {level.log}", highlight=False, soft_wrap=True
            )
    if result.audited:
        console.print(f"audited: {result.audited} blocks counted by a second worker", highlight=False)
    console.print(f"ledger: {result.ledger}", highlight=False, soft_wrap=True)
    if failed:
        lines = [f"image {f.image} ({f.key}) at sigma {sigma:g}: {f.reason}" for sigma, f in failed[:FAILURES_SHOWN]]
        if len(failed) > FAILURES_SHOWN:
            lines.append(f"and {len(failed) - FAILURES_SHOWN} more: `rrcm certify --status {result.ledger}` has them")
        head = f"{len(failed)} images were given up and count as not certified; the same command tries them again:"
        raise RunFailure("\n  ".join([head, *lines]))
