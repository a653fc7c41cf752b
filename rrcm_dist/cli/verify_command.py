"""`rrcm verify`."""

import sys
from typing import TYPE_CHECKING

from rrcm_dist.cli.options import (
    DeviceOption,
    DryRunOption,
    GpuKindOption,
    GpusOption,
    OverridesArgument,
    RecipeArgument,
)
from rrcm_dist.cli.ray_pool import (
    AddressOption,
    CpusPerWorkerOption,
    DashboardOption,
    RayWorkersOption,
    chosen_pool,
)
from rrcm_dist.errors import RunFailure

if TYPE_CHECKING:
    from rrcm_dist.certification.verification.run import VerificationResult

SHOWN = 10
WIDTH_OF_A_FILE = 160
"""Columns to print where the output is no terminal, so that no table is cut."""


def command(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    dry_run: DryRunOption = False,
    device: DeviceOption = "auto",
    workers: RayWorkersOption = None,
    address: AddressOption = None,
    cpus_per_worker: CpusPerWorkerOption = 1,
    dashboard: DashboardOption = True,
    gpus: GpusOption = 8,
    gpu: GpuKindOption = "A800",
) -> None:
    """Verify images in ℓ∞ balls by interval bounds, and attack them by PGD, at every ε of the recipe.

    ```sh
    rrcm verify cifar10/verify-cnn7 checkpoint=RUN data=SHARDS output=VERIFIED
    ```

    An image is verified where the bounds exclude every other class within ε: deterministic, without a probability of
    error, another guarantee than the ℓ2 radii of `rrcm certify`. PGD looks for an error from the other side; where it
    finds one in an image that is verified, something is wrong, and the run says so.

    Runs of `rrcm train-ibp` can be verified, and any function that returns an nn.Sequential of layers that bounds are
    known for: `function=my_nets:network` in place of `checkpoint`. Ended at any time, the same command goes on from
    OUTPUT/ledger.sqlite. `rrcm report OUTPUT` makes tables and a page.
    """
    from rrcm_dist.config.load import load_recipe

    loaded = load_recipe(recipe, overrides or (), kind="verify")
    if dry_run:
        from rrcm_dist.cli.dry_run import show_costs

        show_costs(loaded, gpus, gpu)
        return
    from rrcm_dist.certification.verification.run import verify
    from rrcm_dist.distributed.world import choose_device

    pool = chosen_pool(address, workers, cpus_per_worker, device, dashboard)
    result = verify(loaded, None if pool else choose_device(device), pool=pool)
    _show(result)
    _check(result)


def _show(result: "VerificationResult") -> None:
    from rich.console import Console

    from rrcm_dist.reporting.verification.reading import runs_of
    from rrcm_dist.reporting.verification.tables import errors_terminal_table

    console = Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)
    if any(epsilon.images for epsilon in result.epsilons):
        console.print(errors_terminal_table(runs_of(result.ledger)))
    for level in result.epsilons:
        if level.images:
            seconds = sum(image.seconds for image in level.images) / len(level.images)
            console.print(f"ε {level.epsilon:g}: {seconds:.3g} s per image on average", highlight=False)
    console.print(f"ledger: {result.ledger}", highlight=False, soft_wrap=True)


def _check(result: "VerificationResult") -> None:
    """Raise `RunFailure` for images that contradict themselves, and for those that were given up."""
    broken = [
        f"image {image.image} ({image.key}) at epsilon {level.epsilon:g}: bound {image.margin:.3g}, "
        + (f"but its own class is {image.prediction}" if image.clean_error else f"but PGD found {image.attack:.3g}")
        for level in result.epsilons
        for image in level.contradictions
    ]
    if broken:
        head = (
            f"CONTRADICTION: {len(broken)} images are verified, and PGD found an error in their balls, so the bounds "
            "or the attack are wrong and no number of this run can be trusted:"
        )
        raise RunFailure("\n  ".join([head, *_first(broken, result)]))
    failed = [
        f"image {image.image} ({image.key}) at epsilon {level.epsilon:g}: {image.reason}"
        for level in result.epsilons
        for image in level.failed
    ]
    if failed:
        head = f"{len(failed)} images were given up and count as not verified; the same command tries them again:"
        raise RunFailure("\n  ".join([head, *_first(failed, result)]))


def _first(lines: list[str], result: "VerificationResult") -> list[str]:
    more = [f"and {len(lines) - SHOWN} more in {result.ledger}"] if len(lines) > SHOWN else []
    return [*lines[:SHOWN], *more]
