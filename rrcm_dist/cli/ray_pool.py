"""The workers of a certification, whatever its kind: options, and the Ray that they ask for."""

from typing import TYPE_CHECKING, Annotated

import typer

from rrcm_dist.errors import InvalidInput

if TYPE_CHECKING:
    from rrcm_dist.certification.on_ray.pool import RayPool

RayWorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        help="Ray workers, one a GPU or a CPU; 0: this process.",
        show_default="GPUs, if more than one; else 0",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address", metavar="HOST:PORT|auto", help="Running Ray cluster to use: all its GPUs, if it has any."
    ),
]
CpusPerWorkerOption = Annotated[
    int, typer.Option("--cpus-per-worker", min=1, help="CPUs and threads of a worker on CPU.")
]
DashboardOption = Annotated[bool, typer.Option(help="Start Ray's dashboard with a Ray of one's own.")]


def chosen_pool(
    address: str | None, workers: int | None, cpus_per_worker: int, device: str, dashboard: bool
) -> "RayPool | None":
    """The Ray to use; None where this process is to work alone."""
    if workers == 0 and address is not None:
        raise InvalidInput("--workers 0 counts in this process, --address on a cluster: leave one of them out")
    if workers is None and address is None:
        import torch

        if device == "cpu" or torch.cuda.device_count() < 2:
            return None
    elif workers == 0:
        return None
    from rrcm_dist.certification.on_ray.pool import RayPool

    return RayPool(address, workers, cpus_per_worker, device, dashboard)
