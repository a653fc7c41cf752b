"""Where runs are started. One interface, one file per kind of place."""

from collections.abc import Mapping
from typing import Any, Protocol

from cluster.job import Job
from cluster.site import SITES, LocalSite, load_site
from rrcm_dist.errors import InvalidInput

PLANNED = ("slurm", "ray")
"""Not available yet."""


class Backend(Protocol):
    """A place where runs can be started."""

    def submit(self, job: Job) -> int:
        """Start the job; returns what the door exits with: the run's exit code where it is waited for, 0 once queued.

        Raises `InvalidInput` for a job that cannot run there, before anything is started or queued.
        """


def open_backend(name: str, site: str | None, given: Mapping[str, Any]) -> Backend:
    """The backend of that name, for a site file (by default configs/cluster/NAME.yaml).

    given: keys of the site file from the command line, which go before the file's.
    """
    if name in PLANNED:
        raise InvalidInput(f"backend {name} is not available in this version: choose local")
    if name != "local":
        raise InvalidInput(f"backend {name!r} is not known: choose local")
    from cluster.backends.local import LocalBackend

    return LocalBackend(load_site(LocalSite, site or SITES / f"{name}.yaml", given))
