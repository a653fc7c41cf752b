"""A Slurm cluster: each job is queued with a batch step that keeps it going."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cluster.backends.slurm_certification import CertifySubmission
from cluster.backends.submission import submission_of
from cluster.jobs import Job
from cluster.jobs.certification import CertifyJob
from cluster.jobs.single import SingleJob
from cluster.jobs.training import TrainingJob
from cluster.record.history import History
from cluster.site import SlurmSite
from cluster.slurm.batch import Batch, Resources
from cluster.slurm.checks import check_site
from cluster.slurm.single_step import SingleStep
from cluster.slurm.supervisor import Supervisor
from cluster.slurm.tools import require_slurm


class SlurmBackend:
    """Queues jobs; does not wait for them."""

    def __init__(self, site: SlurmSite) -> None:
        self.site = site

    def submit(self, job: Job) -> int:
        """Queue the job; returns 0. Raises `InvalidInput` for what cannot be, `RunFailure` where sbatch refuses."""
        number = self.queue(job)
        print(f"job {number} is queued: `python -m cluster status {job.folder}`")
        return 0

    def queue(self, job: Job, after: Sequence[str] = ()) -> str:
        """Queue the job, to start once those of the numbers `after` have ended well; returns its number."""
        self.check(job, waits=bool(after))
        if isinstance(job, CertifyJob):
            return CertifySubmission(job, self.site).queue(after)
        with submission_of(job) as submission:
            number = self._batch(job, submission.folder, after).queue(self._step(job, submission.recipe))
            submission.record(number, self.site, after=" ".join(after))
        return number

    def describe(self, job: Job) -> str:
        """The batch script, and what the job does; needs no Slurm."""
        if isinstance(job, CertifyJob):
            return CertifySubmission(job, self.site).describe()
        self._check_recipe(job)
        folder = History(job.folder.absolute()).next_submission()
        step, script = self._step(job, folder / "recipe.yaml"), self._batch(job, folder, ()).script()
        if isinstance(step, SingleStep):
            return f"{script}\n# which runs: {shlex.join(job.command(self.site.device))}\n# Its output: {folder}"
        return "\n".join(
            [
                script,
                f"# which starts {self.site.ranks} ranks by srun, on each of {self.site.nodes} nodes "
                f"{self.site.ranks_per_node}:",
                f"#   python -m cluster.slurm.rank {shlex.join(step.command)}",
                f"# Its output: {folder}; that of the ranks: {job.folder.absolute()}/logs/life-K/rank-R.log",
            ]
        )

    def check(self, job: Job, waits: bool = False) -> None:
        """Raise `InvalidInput` for what the recipe, this machine or the cluster tells of a job that cannot run.

        waits: for others, which may still make what it starts from.
        """
        self._check_recipe(job)
        require_slurm()
        job.check_inputs(waits)
        if isinstance(job, CertifyJob):
            CertifySubmission(job, self.site).check_cluster()
        else:
            check_site(self.site)

    def _check_recipe(self, job: Job) -> None:
        if isinstance(job, CertifyJob):
            CertifySubmission(job, self.site).check()
        if isinstance(job, TrainingJob):
            job.check_ranks(self.site.ranks)
            job.check_start()

    def _step(self, job: Job, recipe: Path) -> Supervisor | SingleStep:
        if isinstance(job, SingleJob):
            return SingleStep(replace(job, folder=job.folder.absolute()), self.site)
        assert isinstance(job, TrainingJob)
        return Supervisor(str(job.folder.absolute()), job.arguments(self.site.device, recipe), self.site)

    def _batch(self, job: Job, folder: Path, after: Sequence[str]) -> Batch:
        site = self.site
        resources = Resources(site.cpus_per_rank, site.nodes, site.ranks_per_node, site.gpus_per_node, site.memory)
        if isinstance(job, SingleJob):
            resources = Resources(site.cpus_per_rank)
        return Batch(job.folder.absolute(), folder, f"rrcm-{job.kind}-{job.name}", site, resources, after)
