"""A certification on Slurm: a head job, and an array of worker jobs that may begin once the head has."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.backends.submission import submission_of
from cluster.jobs.certification import CertifyJob
from cluster.record.history import History
from cluster.site import SlurmSite
from cluster.slurm.batch import Batch, Resources
from cluster.slurm.certify_head import CertifyHead
from cluster.slurm.certify_worker import CertifyWorker
from cluster.slurm.checks import check_site
from cluster.slurm.tools import ask
from rrcm_dist.errors import InvalidInput, RunFailure


@dataclass(frozen=True)
class CertifySubmission:
    """What becomes of a certification at a site."""

    job: CertifyJob
    site: SlurmSite

    def queue(self, after: Sequence[str] = ()) -> str:
        """Queue head and workers, to start once the jobs `after` have ended well; returns the head's number.

        Raises `InvalidInput` where a job owns the folder, `RunFailure` where sbatch refuses; then nothing is queued.
        """
        with submission_of(self.job) as submission:
            folder = submission.folder
            head = self._head_batch(folder, after).queue(self._head(folder, submission.recipe))
            more = {"after": " ".join(after)}
            if self._workers:
                more["workers"] = self._queue_workers(folder, head)
            submission.record(head, self.site, **more)
        return head

    def _queue_workers(self, folder: Path, head: str) -> str:
        try:
            return self._worker_batch(folder, head).queue_array([self._worker(folder, head)] * self._workers)
        except RunFailure:
            ask("scancel", head)
            raise

    def describe(self) -> str:
        """Both batch scripts, and what the jobs do; needs no Slurm."""
        self.check()
        folder = History(self._run).next_submission()
        head = self._head(folder, folder / "recipe.yaml")
        command = shlex.join(["python", *head.command[1:]])
        lines = [
            self._head_batch(folder, ()).script(),
            f"# which starts a Ray cluster, with {head.cpus} CPUs and {head.gpus} GPUs of its own to count on, and:",
            f"#   {command} --address HOST:PORT",
            f"# Its output: {folder}; that of the sweep: {self._run}/logs/life-K/certify.log",
        ]
        if self._workers:
            lines += [
                "",
                self._worker_batch(folder, "HEAD").script(self._workers),
                f"# of which each task joins that cluster with {self._cpus} CPUs and {self._gpus} GPUs.",
            ]
        return "\n".join(lines)

    def check(self) -> None:
        """Raise `InvalidInput` for a recipe that cannot be, and a site on which it cannot run."""
        self.job.check()
        if self._device == "cuda" and not self._gpus:
            raise InvalidInput("device cuda needs GPUs: certification.gpus_per_worker is 0 here")

    def check_cluster(self) -> None:
        """Raise `InvalidInput` for what the cluster does not have."""
        batches = {"head": self._head_batch(Path(), ())}
        if self._workers:
            batches["worker"] = self._worker_batch(Path(), "")
        for whose, batch in batches.items():
            asked = batch.resources
            as_site = {
                "nodes": 1,
                "ranks_per_node": 1,
                "cpus_per_rank": asked.cpus_per_task,
                "gpus_per_node": asked.gpus_per_node,
                "partition": asked.partition or self.site.partition,
                "time_limit": asked.minutes or self.site.time_limit,
            }
            try:
                check_site(self.site.model_copy(update=as_site))
            except InvalidInput as error:
                raise InvalidInput(f"certification, a {whose} job: {error}") from None

    @property
    def _run(self) -> Path:
        return self.job.folder.absolute()

    @property
    def _workers(self) -> int:
        return self.site.certification.workers

    @property
    def _cpus(self) -> int:
        """Of whatever counts: a worker job, or the head where there is none."""
        return self.site.certification.cpus_per_worker or self.site.cpus_per_rank

    @property
    def _gpus(self) -> int:
        asked = self.site.certification.gpus_per_worker
        return min(1, self.site.gpus_per_node) if asked is None else asked

    @property
    def _device(self) -> str:
        """Said outright, as the first worker may come after the sweep has begun to look."""
        if self.site.device != "auto":
            return self.site.device
        return "cuda" if self._gpus else "cpu"

    def _head(self, folder: Path, recipe: Path) -> CertifyHead:
        # On GPUs one actor a GPU, which share the CPUs as threads; on CPU one actor a job, with all of them.
        threads = max(1, self._cpus // self._gpus) if self._device == "cuda" else self._cpus
        command = [*self.job.command(self._device, recipe), "--cpus-per-worker", str(threads)]
        cpus, gpus = (0, 0) if self._workers else (self._cpus, self._gpus)
        return CertifyHead(str(self._run), str(folder), command, self.site, cpus, gpus, self._device)

    def _worker(self, folder: Path, head: str) -> CertifyWorker:
        return CertifyWorker(str(folder), head, self._cpus, self._gpus, self.site.environment)

    def _head_batch(self, folder: Path, after: Sequence[str]) -> Batch:
        asked = self.site.certification
        resources = Resources(
            asked.head_cpus + (0 if self._workers else self._cpus),
            gpus_per_node=0 if self._workers else self._gpus,
            memory=asked.head_memory,
            partition=asked.head_partition,
            minutes=asked.head_time_limit,
        )
        return Batch(self._run, folder, f"rrcm-certify-{self.job.name}", self.site, resources, after)

    def _worker_batch(self, folder: Path, head: str) -> Batch:
        asked = self.site.certification
        resources = Resources(
            self._cpus,
            gpus_per_node=self._gpus,
            memory=asked.worker_memory,
            partition=asked.worker_partition,
            minutes=asked.worker_time_limit,
        )
        name = f"rrcm-certify-{self.job.name}-workers"
        return Batch(self._run, folder, name, self.site, resources, begun=(head,))
