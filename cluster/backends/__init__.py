"""Where runs are started. One interface, one file per kind of place."""

from collections.abc import Mapping
from typing import Any, Protocol

from cluster.jobs import Job
from cluster.site import SITES, LocalSite, RaySite, SlurmSite, backend_of, load_site
from rrcm_dist.errors import InvalidInput

Site = LocalSite | SlurmSite | RaySite
KINDS: dict[str, type[Site]] = {"local": LocalSite, "slurm": SlurmSite, "ray": RaySite}
AVAILABLE = tuple(KINDS)


class Backend(Protocol):
    """A place where runs can be started."""

    def submit(self, job: Job) -> int:
        """Start the job; returns what the door exits with: the run's exit code where it is waited for, 0 once queued.

        Raises `InvalidInput` for a job that cannot run there, before anything is started or queued.
        """

    def describe(self, job: Job) -> str:
        """What `submit` would do, for people; starts nothing. Raises `InvalidInput` as far as it can be known."""


def open_backend(name: str | None, site: str | None, given: Mapping[str, Any]) -> Backend:
    """The backend that a site file is for, or of a name (by default local, with configs/cluster/local.yaml).

    given: keys of the site file from the command line, which go before the file's.
    """
    choice = ", ".join(AVAILABLE[:-1]) + f" or {AVAILABLE[-1]}"
    if name is not None and name not in AVAILABLE:
        raise InvalidInput(f"backend {name!r} is not known: choose {choice}")
    wanted = backend_of(site) if site else name or "local"
    if wanted not in AVAILABLE:
        raise InvalidInput(f"{site} is for backend {wanted!r}, which is not available: its `backend:` may be {choice}")
    if name is not None and name != wanted:
        raise InvalidInput(f"{site} is for backend {wanted}: leave out --backend {name}, or give another site file")
    if wanted == "local":
        return _backend_on(load_site(LocalSite, site or SITES / "local.yaml", given))
    if site is None:
        there = ", ".join(str(file) for file in sorted(SITES.glob(f"{wanted}*.yaml")))
        raise InvalidInput(f"backend {wanted} needs the cluster's facts: --site FILE, after the example of {there}")
    kind = KINDS[wanted]
    if others := given.keys() - kind.model_fields.keys():
        options = " and ".join(f"--{name}" for name in sorted(others))
        raise InvalidInput(f"{options}: not for backend {wanted}; see the keys of {site}")
    return _backend_on(load_site(kind, site, given))


def backend_of_submission(submission: Mapping[str, Any]) -> Backend:
    """That of a line of jobs.jsonl, with the site as it was."""
    site = submission["site"]
    return _backend_on(KINDS[site["backend"]].model_validate(site))


def _backend_on(site: Site) -> Backend:
    if isinstance(site, LocalSite):
        from cluster.backends.local import LocalBackend

        return LocalBackend(site)
    if isinstance(site, RaySite):
        from cluster.backends.ray import RayBackend

        return RayBackend(site)
    from cluster.backends.slurm import SlurmBackend

    return SlurmBackend(site)
