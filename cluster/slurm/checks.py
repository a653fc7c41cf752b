"""What can be known to be wrong before a job is queued."""

from typing import Literal

from cluster.site import SlurmSite
from cluster.slurm.tools import ask
from rrcm_dist.errors import InvalidInput


def check_site(site: SlurmSite) -> None:
    """Raise `InvalidInput` for a partition, account, qos, CPUs, GPUs or a limit that the cluster does not have."""
    lines = (ask("sinfo", "--noheader", "--exact", "--format=%R|%l|%G|%D|%c") or "").splitlines()
    partitions: dict[str, list[list[str]]] = {}
    for line in lines:
        name, *rest = line.split("|")
        partitions.setdefault(name, []).append(rest)
    named = site.partition.split(",") if site.partition else []
    if partitions and (unknown := [name for name in named if name not in partitions]):
        raise InvalidInput(f"there is no partition {', '.join(unknown)}: choose {', '.join(partitions)}")
    if partitions and len(named) == 1:  # of several, Slurm takes the first that has room
        _check_partition(site, partitions[named[0]])
    _check_accounted("account", site.account)
    _check_accounted("qos", site.qos)


def _check_partition(site: SlurmSite, lines: list[list[str]]) -> None:
    limit = minutes(lines[0][0])
    if limit is not None and site.time_limit > limit:
        raise InvalidInput(f"time_limit {site.time_limit} min is more than partition {site.partition} allows: {limit}")
    cpus = max(int(count) for *_, count in lines)
    if site.ranks_per_node * site.cpus_per_rank > cpus:
        raise InvalidInput(
            f"{site.ranks_per_node} ranks of cpus_per_rank {site.cpus_per_rank} are more than a node of partition "
            f"{site.partition} has: {cpus} CPUs"
        )
    most = max(_gpus(gres) for _, gres, *_ in lines)
    if site.gpus_per_node > most:
        raise InvalidInput(
            f"gpus_per_node {site.gpus_per_node} is more than a node of partition {site.partition} has: {most}"
        )
    nodes = sum(int(count) for _, _, count, _ in lines)
    if site.nodes > nodes:
        raise InvalidInput(f"nodes {site.nodes} is more than partition {site.partition} has: {nodes}")


def _check_accounted(kind: Literal["account", "qos"], name: str | None) -> None:
    """Where there is accounting; elsewhere any name is taken."""
    if name is None:
        return
    field = {"account": "Account", "qos": "Name"}[kind]
    known = (ask("sacctmgr", "--noheader", "--parsable2", "show", kind, f"format={field}") or "").split()
    if known and name not in known:
        raise InvalidInput(f"there is no {kind} {name}: choose {', '.join(known)}")


def minutes(text: str) -> int | None:
    """A limit as Slurm writes it (4:00:00, 1-00:00:00, 30:00) in minutes; None for infinite."""
    days, _, clock = text.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdecimal() for part in parts):
        return None
    hours, mins, _ = ["0"] * (3 - len(parts)) + parts
    return int(days or 0) * 1440 + int(hours) * 60 + int(mins)


def _gpus(gres: str) -> int:
    """'gpu:a800:8(S:0-1)' → 8; 0 for '(null)'."""
    counts = [part.split("(")[0].split(":")[-1] for part in gres.split(",") if part.startswith("gpu")]
    return sum(int(count) for count in counts if count.isdecimal())
