"""A Slurm cluster: submitit queues the job, and a supervisor in its batch step keeps the run going."""

import sys
from pathlib import Path
from typing import Any

from cluster.job import Job
from cluster.record.history import History
from cluster.record.progress import newest_checkpoint
from cluster.site import SlurmSite
from cluster.slurm.checks import check_folder, check_site
from cluster.slurm.runs import COMMENT
from cluster.slurm.supervisor import Supervisor
from cluster.slurm.tools import require_slurm
from rrcm_dist.config.load import dump_recipe
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.files import write_text

try:
    from submitit import SlurmExecutor
except ImportError as error:
    raise InvalidInput(f"submitit is not installed ({error}): pip install 'rrcm-dist[cluster]'") from None


class SlurmBackend:
    """Queues a job; does not wait for it."""

    def __init__(self, site: SlurmSite) -> None:
        self._site = site

    def submit(self, job: Job) -> int:
        """Queue the job; returns 0. Raises `InvalidInput` for what cannot be, `RunFailure` where sbatch refuses."""
        job.check_ranks(self._site.ranks)
        require_slurm()
        check_site(self._site)
        run = job.folder.absolute()
        check_folder(run)
        if job.resume == "never" and newest_checkpoint(run):
            raise InvalidInput(
                f"{run} holds checkpoints: --resume auto goes on from the newest, or give another output"
            )
        folder = History(run).next_submission()
        recipe = folder / "recipe.yaml"
        write_text(recipe, dump_recipe(job.resolved))
        try:
            queued = self._executor(job, folder).submit(self._supervisor(job, folder))
        except Exception as error:  # submitit's errors have no common class
            raise RunFailure(f"the job was not queued: {_words(error)}") from error
        History(run).add_job(queued.job_id, job.kind, recipe, sys.argv[1:], self._site.model_dump(mode="json"))
        print(f"job {queued.job_id} is queued: `python -m cluster status {job.folder}`")
        return 0

    def describe(self, job: Job) -> str:
        """The batch script, and what the job does; needs no Slurm."""
        job.check_ranks(self._site.ranks)
        folder = History(job.folder.absolute()).next_submission()
        executor = self._executor(job, folder)
        script = executor._make_submission_file_text(executor._submitit_command_str, "dry-run")
        supervisor = self._supervisor(job, folder)
        return "\n".join(
            [
                script,
                f"# which starts {self._site.ranks} ranks by srun, on each of {self._site.nodes} nodes "
                f"{self._site.ranks_per_node}:",
                f"#   {' '.join(['python -m cluster.slurm.rank', *supervisor.command])}",
                f"# Its output: {folder}; that of the ranks: {job.folder.absolute()}/logs/life-K/rank-R.log",
            ]
        )

    def _supervisor(self, job: Job, folder: Path) -> Supervisor:
        command = [job.kind, str(folder / "recipe.yaml"), "--resume", "auto", "--device", self._site.device]
        return Supervisor(str(job.folder.absolute()), command, self._site)

    def _executor(self, job: Job, folder: Path) -> SlurmExecutor:
        # `exec`: the supervisor itself, and no shell, is the batch step's first process, which gets Slurm's signals.
        executor = _Executor(folder, python=f"exec {sys.executable}")
        executor.update_parameters(**self._parameters(job))
        return executor

    def _parameters(self, job: Job) -> dict[str, Any]:
        site = self._site
        return {
            "job_name": f"rrcm-{job.kind}-{job.resolved.name}",
            "comment": f"{COMMENT}{job.folder.absolute()}",
            "nodes": site.nodes,
            "ntasks_per_node": site.ranks_per_node,
            "cpus_per_task": site.cpus_per_rank,
            "time": site.time_limit,
            "wckey": None,
            "use_srun": False,
            "stderr_to_stdout": True,
            # A signal that comes before the supervisor listens must not end it.
            "setup": ["trap '' USR2", *site.setup],
            **({"gpus_per_node": site.gpus_per_node} if site.gpus_per_node else {}),
            **{key: value for key in ("partition", "account", "qos") if (value := getattr(site, key))},
            **({"exclude": ",".join(site.exclude)} if site.exclude else {}),
            "additional_parameters": {
                **({"mem": site.memory} if site.memory else {}),
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


def _words(error: Exception) -> str:
    """What sbatch said, which submitit wraps."""
    lines = [line for line in str(error).splitlines() if "sbatch: error" in line]
    return "; ".join(line.split("sbatch: error: ")[-1] for line in lines) or str(error)
