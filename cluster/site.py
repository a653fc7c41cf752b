"""Site files: the facts of a place that no recipe holds, one typed YAML file a place."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from rrcm_dist.config.load import RECIPES
from rrcm_dist.config.parts import Count, Part
from rrcm_dist.config.yaml_text import read_yaml
from rrcm_dist.errors import InvalidInput

SITES = RECIPES / "cluster"
SLURM_EARLY_SECONDS = 60
"""Slurm sends the signal before the time limit up to so much too early."""


class LocalSite(Part):
    """This machine."""

    backend: Literal["local"]
    """Which backend the file is for."""
    ranks: Count | None = None
    """Processes that train together; null: one per visible GPU, or a single one where there is none."""
    threads: Count | None = None
    """CPU threads of each rank; null shares the cores out."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes CUDA where there is one; each rank has a GPU of its own."""
    stop_seconds: Annotated[float, Field(ge=0)] = 10.0
    """When one rank has ended badly, the others are killed after so long."""


class CertificationJobs(Part):
    """How a certification uses a Slurm cluster: a head job that lasts, and worker jobs that may come and go."""

    workers: Annotated[int, Field(ge=0)] = 4
    """Worker jobs, an array, each a node of the sweep's own Ray cluster; 0: the head job counts by itself."""
    cpus_per_worker: Count | None = None
    """Cores of a worker job, shared by its GPUs; null takes cpus_per_rank."""
    gpus_per_worker: Annotated[int, Field(ge=0)] | None = None
    """GPUs of a worker job; null takes one where gpus_per_node is not 0."""
    worker_memory: str | None = None
    """Memory of a worker job; null takes the partition's default."""
    worker_partition: str | None = None
    """Where worker jobs run, a preemptible one as well; null takes partition."""
    worker_time_limit: Count | None = None
    """Minutes of one life of a worker job, which then comes back; null takes time_limit."""
    head_cpus: Count = 2
    """Cores of the head job: for Ray's own processes and the ledger."""
    head_memory: str | None = None
    """Memory of the head job; null takes the partition's default."""
    head_partition: str | None = None
    """Where the head job runs, best a place without preemption; null takes partition."""
    head_time_limit: Count | None = None
    """Minutes of one life of the head job, which then goes on; null takes time_limit."""


class SlurmSite(Part):
    """A part of a Slurm cluster, and how a run uses it."""

    backend: Literal["slurm"]
    """Which backend the file is for."""
    nodes: Count = 1
    """Nodes of a run."""
    ranks_per_node: Count
    """Processes that train together on each node: one per GPU."""
    gpus_per_node: Annotated[int, Field(ge=0)]
    """GPUs asked for on each node; 0 for none."""
    cpus_per_rank: Count
    """Cores of each rank: for its own threads and its decoding processes."""
    memory: str | None = None
    """Memory asked for on each node, as sbatch has it: 480G; null takes the partition's default."""
    time_limit: Count
    """Minutes that one life of a job may last; the run goes on in the next life."""
    partition: str | None = None
    """null takes the cluster's default."""
    account: str | None = None
    """null takes the user's default."""
    qos: str | None = None
    """Quality of service; null takes the default."""
    exclude: list[str] = Field(default_factory=list)
    """Nodes never to use."""
    options: dict[str, str] = Field(default_factory=dict)
    """Further options of sbatch, by long name: constraint, reservation, …"""
    seconds_before_limit: Count
    """So long before the time limit the ranks are asked to keep a checkpoint and end. Slurm may ask up to 60 s earlier;
    a step, an evaluation and a checkpoint must fit."""
    crashes_allowed: Annotated[int, Field(ge=0)] = 3
    """Crashes of one job after which it goes on by itself; preemptions and lost nodes are not counted."""
    preflight: bool = True
    """Look at every node before each life of a training run begins on it; unfit ones are named and set aside."""
    preflight_seconds: Count = 120
    """A node or rank that has not come through its part of the preflight by then is unfit."""
    least_bandwidth: Annotated[float, Field(gt=0)] | None = None
    """GB/s of bus bandwidth that an all-reduce over all ranks must reach; null measures it, and takes any."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes CUDA where there is one."""
    setup: list[str] = Field(default_factory=list)
    """Lines of shell to run on the first node before anything else: module load, … A line that fails ends the job."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables that every rank gets: all settings of NCCL and gloo belong here."""
    certification: CertificationJobs = Field(default_factory=CertificationJobs)
    """How `submit certify` uses the cluster."""

    @property
    def ranks(self) -> int:
        """Processes that train together."""
        return self.nodes * self.ranks_per_node

    @model_validator(mode="after")
    def _leaves_time(self) -> Self:
        earliest = self.seconds_before_limit + SLURM_EARLY_SECONDS
        limits = {
            "time_limit": self.time_limit,
            "certification.head_time_limit": self.certification.head_time_limit,
            "certification.worker_time_limit": self.certification.worker_time_limit,
        }
        for key, limit in limits.items():
            if limit is not None and limit * 60 <= earliest:
                raise ValueError(
                    f"{key} {limit} min leaves no time to work: a job may be asked to end {earliest} s before it "
                    "(seconds_before_limit, and 60 s by which Slurm may be early)"
                )
        return self


class RaySite(Part):
    """A Ray cluster that is there already, and how a run uses it.

    Its nodes see the file system of the one that submits, and on it the same Python environment, by the same paths.
    """

    backend: Literal["ray"]
    """Which backend the file is for."""
    address: Annotated[str, Field(pattern=r"^https?://")]
    """Of the cluster's dashboard, which takes jobs: http://HOST:8265."""
    ranks: Count
    """Processes that train together; a certification uses the whole cluster."""
    cpus_per_rank: Count
    """Cores of each rank, or of each worker of a certification: for its own threads and its decoding processes."""
    gpus_per_rank: Annotated[int, Field(ge=0, le=1)]
    """1: each rank has a GPU of its own; 0: they train on CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes CUDA where there is one."""
    stop_seconds: Annotated[float, Field(ge=0)] = 10.0
    """When one rank has ended badly, the others are killed after so long."""
    cancel_seconds: Count = 60
    """When the job is cancelled, so long do the ranks have to keep a checkpoint and end."""
    crashes_allowed: Annotated[int, Field(ge=0)] = 3
    """Crashes of one job after which it goes on by itself; lost nodes are not counted."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables that every rank gets: all settings of NCCL and gloo belong here."""


Site = TypeVar("Site", bound=Part)


def load_site(kind: type[Site], path: str | Path, given: Mapping[str, Any]) -> Site:
    """Read a site file of this kind; values in `given` (from the command line) go before the file's.

    Raises `InvalidInput` naming every unknown key and every impossible value.
    """
    file, values = Path(path), _read(path)
    try:
        return kind.model_validate({**values, **given}, strict=True)
    except ValidationError as error:
        problems = [_problem(dict(one), kind) for one in error.errors(include_url=False)]
    raise InvalidInput("\n  ".join([f"{file}, with what was given on the command line, cannot be:", *problems]))


def backend_of(path: str | Path) -> str:
    """Which backend a site file is for."""
    return str(_read(path).get("backend"))


def _read(path: str | Path) -> dict[str, Any]:
    file = Path(path)
    if file.is_dir():
        raise InvalidInput(f"site file {file} is a folder: name a YAML file in it")
    if not file.is_file():
        there = ", ".join(str(f) for f in sorted(SITES.glob("*.yaml"))) or "none"
        raise InvalidInput(f"there is no site file {path}; the project has {there}")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"site file {file} cannot be read: {error}") from None
    values = read_yaml(text, str(file))
    if not isinstance(values, dict):
        raise InvalidInput(f"{file} is not a site file: it must hold `key: value` lines, beginning with `backend:`")
    return values


def _problem(error: dict[str, Any], kind: type[Part]) -> str:
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, kind.model_fields, n=1)
        return f"{key}: unknown key; " + (
            f"did you mean {near[0]}?" if near else f"known: {', '.join(kind.model_fields)}"
        )
    if not key:  # of several keys together, which its words name
        return error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{key}: missing, must be given"
    return f"{key}: {error['msg'].replace('Input should be', 'must be')} (given {error['input']!r})"
