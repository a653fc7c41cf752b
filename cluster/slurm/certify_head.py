"""What the head job of a certification does: it keeps a Ray cluster and drives the sweep on whatever has joined it.

The cluster is the submission's own; its head node does no work, unless there are no worker jobs. A life of the head
ends the cluster: the next one starts another, elsewhere perhaps, and the workers follow. The ledger has every block
counted until then.
"""

import os
import shlex
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.ray_nodes.addresses import own_address
from cluster.ray_nodes.facts import HeadFacts, HeadState, versions_here, write_token
from cluster.ray_nodes.node import NodeAddresses, NodeSettings, RayNode
from cluster.ray_nodes.processes import die_with_parent_ignoring_usr2
from cluster.record.draws import counted_draws
from cluster.record.history import Cause, History, Life
from cluster.record.policy import AS_WANTED, DRAW, goes_on
from cluster.record.rank_errors import why_ranks_ended
from cluster.site import SlurmSite
from cluster.slurm.batch_step import POLL_SECONDS, BatchStep
from cluster.slurm.job_facts import node_address
from cluster.slurm.tools import ask, is_queued
from rrcm_dist.certification.on_ray.address import OF_ANOTHER_RAY, Token, nodes_alive
from rrcm_dist.errors import InvalidInput, RunFailure

ASK_SECONDS = 30.0
"""Between two questions to Slurm whether there are workers left."""
GPU_SECONDS = 1.0
"""Between two questions to Ray whether the first GPU has come."""
LEAVE_SECONDS = 20.0
"""A sweep that is asked to end takes a second or two."""
SETTLE_SECONDS = 1.0
"""After the sweep's end: what ends it may end the job, too, and says so a little later."""


@dataclass
class CertifyHead:
    """A head job; submitit calls it in the batch step of every life."""

    run: str
    """The run folder."""
    folder: str
    """That of the submission."""
    command: list[str]
    """The sweep's, to which the cluster's address is added."""
    site: SlurmSite
    cpus: int
    """CPUs and GPUs of this job that count; none where there are worker jobs."""
    gpus: int
    device: str
    """cpu or cuda."""

    def __call__(self) -> str:
        """Live one life; returns its cause in words. Raises `RunFailure` where the run ends for a failure."""
        self._step, self._deserted = BatchStep(), False
        run, history = Path(self.run), History(Path(self.run))
        life = history.begin(self._step.job, counted_draws(run))
        print(f"life {life.number} of {run}, from {life.start_step} draws", flush=True)
        self._facts = HeadFacts(
            HeadState.AWAY, life.number, "", "", str(write_token(Path(self.folder))), versions_here()
        )
        with ExitStack() as self._children:
            cause, detail = self._live(life)
            history.end(life, cause, counted_draws(run), detail)
            print(f"life {life.number} ended: {cause}{f' ({detail})' if detail else ''}", flush=True)
            waits = self._workers() is not None
            again, why_not = goes_on(history.lives(), self.site.crashes_allowed, DRAW, may_wait=waits)
            self._tell(HeadState.AWAY if again else HeadState.ENDED)
        if not again:
            self._end_workers()
        elif not self._step.terminated or cause is Cause.TIME_LIMIT:
            self._step.requeue(f"python -m cluster resubmit {run}")
        if not again and cause not in AS_WANTED:
            raise RunFailure("; ".join(filter(None, [f"{cause}: {detail}", why_not])))
        return str(cause)

    def _live(self, life: Life) -> tuple[Cause, str]:
        settings = NodeSettings(
            own_address(node_address(os.environ["SLURMD_NODENAME"])), self._facts.token_file, self.cpus, self.gpus
        )
        self._node = RayNode(settings, self._environment())
        self._children.callback(self._node.stop)
        if self._holds_until(lambda: self._node.addresses is not None):
            assert self._node.addresses is not None
            self._announce(self._node.addresses)
            return self._sweep(life)
        return self._cause(life, None)

    def _announce(self, addresses: NodeAddresses) -> None:
        self._facts = replace(self._facts, address=addresses.head, dashboard=addresses.dashboard)
        self._tell(HeadState.RUNNING)
        where = addresses.dashboard.removeprefix("http://")
        port, login = where.rpartition(":")[2], os.environ.get("SLURM_SUBMIT_HOST", "LOGIN_NODE")
        print(f"Ray dashboard: {addresses.dashboard} (token: the content of {self._facts.token_file})")
        print(f"  from elsewhere: ssh -N -L {port}:{where} {login}, then http://localhost:{port}", flush=True)

    def _sweep(self, life: Life) -> tuple[Cause, str]:
        code = None
        while self.device == "cpu" or self._holds_until(self._gpu_is_there, GPU_SECONDS):
            code = self._drive(life)
            if code != InvalidInput.exit_code or self.device == "cpu" or self._gpu_is_there():
                break
        return self._cause(life, code)

    def _drive(self, life: Life) -> int | None:
        """Exit code of a sweep on the cluster; None where Slurm ends this job first."""
        logs = Path(self.run) / "logs" / f"life-{life.number}"
        logs.mkdir(parents=True, exist_ok=True)
        command = [*self.command, "--address", self._facts.address]
        print(shlex.join(command), flush=True)
        with open(logs / "certify.log", "ab") as log:
            sweep = subprocess.Popen(
                command, env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=die_with_parent_ignoring_usr2,
            )  # fmt: skip
        self._children.callback(_end, sweep)
        if self._holds_until(lambda: sweep.poll() is not None):
            time.sleep(SETTLE_SECONDS)
        if not self._step.terminated:
            _end(sweep)
        return sweep.poll()

    def _holds_until(self, reached: Callable[[], bool], every: float = POLL_SECONDS) -> bool:
        """Whether this is reached before the job is to end, its Ray dies or the last worker job is gone."""
        asked_slurm = time.monotonic()
        while not reached():
            if self._ending or not self._node.alive:
                return False
            if time.monotonic() - asked_slurm > ASK_SECONDS:
                asked_slurm, self._deserted = time.monotonic(), not self._workers_left()
                if self._deserted:
                    return False
            time.sleep(every)
        return True

    def _cause(self, life: Life, code: int | None) -> tuple[Cause, str]:
        logs = Path(self.run) / "logs" / f"life-{life.number}"
        if code == 0:
            return Cause.DONE, ""
        if self._ending:
            return self._step.why(self.site.seconds_before_limit)
        if self._deserted:
            return Cause.REFUSED, f"every worker job has ended; their logs are in {self.folder}"
        if not self._node.alive:
            return Cause.CRASHED, "Ray died; see the log of the job"
        if code == InvalidInput.exit_code:
            return Cause.REFUSED, why_ranks_ended(logs) or f"see {logs}"
        return Cause.CRASHED, f"{why_ranks_ended(logs) or f'the sweep ended with {code}'}; see {logs}"

    @property
    def _ending(self) -> bool:
        return self._step.asked or self._step.terminated

    def _gpu_is_there(self) -> bool:
        """Without one, a sweep on GPUs refuses to begin."""
        token = Token(Path(self._facts.token_file).read_text(), self._facts.token_file)
        try:
            nodes = nodes_alive(self._facts.address, token)
        except RunFailure:  # it is slow to answer
            return False
        return any(node.resources_total.get("GPU", 0) >= 1 for node in nodes)

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in OF_ANOTHER_RAY}
        return {
            **inherited,
            "PYTHONUNBUFFERED": "1",
            **self.site.environment,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": self._facts.token_file,
        }

    def _tell(self, state: HeadState) -> None:
        self._facts = replace(self._facts, state=state)
        self._facts.write(Path(self.folder))

    def _workers(self) -> str | None:
        """Number of the array of worker jobs; None where there is none, or it is not queued yet."""
        mine = [line for line in History(Path(self.run)).jobs() if line["job"] == self._step.job]
        return mine[-1].get("workers") if mine else None

    def _workers_left(self) -> bool:
        """Whether any may still come, as far as Slurm says."""
        workers = self._workers()
        try:
            return workers is None or is_queued(workers)
        except RunFailure:  # the controller is silent: nothing is known
            return True

    def _end_workers(self) -> None:
        if workers := self._workers():
            ask("scancel", workers)


def _end(sweep: subprocess.Popen[bytes]) -> None:
    """Ask it to end, wait, and kill it where it does not."""
    if sweep.poll() is None:
        sweep.terminate()
    try:
        sweep.wait(LEAVE_SECONDS)
    except subprocess.TimeoutExpired:
        sweep.kill()
        sweep.wait()
