"""Queueing by submitit: a callable becomes the batch step of a job, or of each task of an array."""

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.site import SlurmSite
from rrcm_dist.cli.door import enter
from rrcm_dist.errors import InvalidInput, RunFailure

try:
    from submitit import SlurmExecutor
except ImportError as error:
    raise InvalidInput(f"submitit is not installed ({error}): pip install 'rrcm-dist[cluster]'") from None

COMMENT = "rrcm-run:"
"""What the comment of every job of ours begins with; the run folder follows."""


@dataclass(frozen=True)
class Resources:
    """What a job asks for; what is None is left to the cluster."""

    cpus_per_task: int
    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: int = 0
    memory: str | None = None
    """On each node."""
    partition: str | None = None
    minutes: int | None = None
    """The time limit of one life; None: the site's."""


@dataclass(frozen=True)
class Batch:
    """A job to queue."""

    run: Path
    """The run folder, absolute."""
    folder: Path
    """That of this submission: its log, and what submitit keeps."""
    name: str
    site: SlurmSite
    resources: Resources
    after: Sequence[str] = field(default=())
    """Jobs that must have ended well before it starts."""
    begun: Sequence[str] = field(default=())
    """Jobs that must have begun before it starts."""

    def queue(self, step: Callable[[], Any]) -> str:
        """Number of the job, of which `step` is the batch step. Raises `RunFailure` where sbatch refuses it."""
        return self.queue_array([step])

    def queue_array(self, steps: Sequence[Callable[[], Any]]) -> str:
        """Number of the job array (of the job, where there is but one step), all of whose tasks may run at once."""
        executor = self._executor(len(steps))
        try:
            jobs = executor.map_array(_call, steps) if len(steps) > 1 else [executor.submit(_call, steps[0])]
        except Exception as error:  # submitit's errors have no common class
            raise RunFailure(f"the job was not queued: {_words(error)}") from error
        return str(jobs[0].job_id).partition("_")[0]

    def script(self, tasks: int = 1) -> str:
        """The batch script; needs no Slurm."""
        executor = self._executor(tasks)
        if tasks > 1:
            executor.parameters["map_count"] = tasks
        return str(executor._make_submission_file_text(executor._submitit_command_str, "dry-run"))

    def _executor(self, tasks: int) -> SlurmExecutor:
        # `exec`: the callable itself, and no shell, is the batch step's first process, which gets Slurm's signals.
        executor = _Executor(self.folder, python=f"exec {shlex.quote(sys.executable)}")
        executor.update_parameters(**self._parameters(), array_parallelism=tasks)
        return executor

    def _parameters(self) -> dict[str, Any]:
        site, asked = self.site, self.resources
        partition = asked.partition or site.partition
        waits = [f"{how}:{':'.join(jobs)}" for how, jobs in (("afterok", self.after), ("after", self.begun)) if jobs]
        return {
            "job_name": self.name,
            "comment": f"{COMMENT}{self.run}",
            "nodes": asked.nodes,
            "ntasks_per_node": asked.tasks_per_node,
            "cpus_per_task": asked.cpus_per_task,
            "time": asked.minutes or site.time_limit,
            "wckey": None,
            "use_srun": False,
            "stderr_to_stdout": True,
            # A signal that comes before the batch step listens must not end it.
            "setup": ["trap '' USR2", *(["set -e", *site.setup, "set +e"] if site.setup else [])],
            **({"gpus_per_node": asked.gpus_per_node} if asked.gpus_per_node else {}),
            **({"partition": partition} if partition else {}),
            **{key: value for key in ("account", "qos") if (value := getattr(site, key))},
            **({"exclude": ",".join(site.exclude)} if site.exclude else {}),
            **({"dependency": ",".join(waits)} if waits else {}),
            "additional_parameters": {
                **({"mem": asked.memory} if asked.memory else {}),
                **site.options,
                "signal": f"B:USR2@{site.seconds_before_limit}",
                "requeue": True,
            },
        }


class _Executor(SlurmExecutor):
    """submitit's, which can be put together where there is no Slurm."""

    @classmethod
    def affinity(cls) -> int:
        return 2


def _call(step: Callable[[], Any]) -> None:
    """What submitit calls, once in every life; it does not return.

    Submitit would keep the result in a file, and fail where the disk is full or a killed life has left half of one.
    """
    enter(step)
    sys.exit(0)


def _words(error: Exception) -> str:
    """What sbatch said, which submitit wraps."""
    lines = [line for line in str(error).splitlines() if "sbatch: error" in line]
    return "; ".join(line.split("sbatch: error: ")[-1] for line in lines) or str(error)
