"""What a job's batch step does: it starts the ranks by srun, hears Slurm's signals, and decides what comes after.

Slurm may end a job without asking (a dead node, a preemption without grace): the next life then finds its place by
itself, in the newest good checkpoint. What is decided here is why a life ended and whether another one follows.
"""

import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from cluster.preflight.table import in_words
from cluster.preflight.verdict import Verdict
from cluster.record.history import Cause, History, Life
from cluster.record.policy import AS_WANTED, goes_on
from cluster.record.progress import newest_checkpoint, newest_step
from cluster.record.rank_errors import why_ranks_ended
from cluster.site import SlurmSite
from cluster.slurm.batch_step import POLL_SECONDS, BatchStep
from cluster.slurm.job_facts import lost_nodes, node_address
from cluster.slurm.preflight import Preflight
from cluster.slurm.tools import ask, host_names
from rrcm_dist.errors import InvalidInput, RunFailure

ASK_AGAIN_SECONDS = 10.0
SETTLE_SECONDS = 1.0
"""After srun's end: what ends the ranks may end the job, too, and says so a little later."""
FIRST_PORT, PORTS = 12000, 16000
"""Where the ranks meet, by job: below the ports that the system deals out by itself."""


@dataclass
class Supervisor:
    """A submitted run; submitit calls it in the batch step of every life."""

    run: str
    """The run folder."""
    command: list[str]
    """What follows `python -m cluster.slurm.rank`."""
    site: SlurmSite

    def __call__(self) -> str:
        """Live one life; returns its cause in words. Raises `RunFailure` where the run ends for a failure."""
        run, self._step = Path(self.run), BatchStep()
        history = History(run)
        life = history.begin(self._step.job, newest_step(run))
        print(f"life {life.number} of {run}, from step {life.start_step}", flush=True)
        self._srun: subprocess.Popen[bytes] | None = None
        self._steps_before, self._unfit = 0, list[str]()
        cause, detail = (self._preflight(life) if self.site.preflight else None) or self._live(life)
        history.end(life, cause, newest_step(run), detail, self._unfit)
        print(f"life {life.number} ended: {cause}{f' ({detail})' if detail else ''}", flush=True)
        again, why_not = goes_on(history.lives(), self.site.crashes_allowed)
        # Slurm has requeued what it ends, unless for its time limit.
        if again and (not self._step.terminated or cause is Cause.TIME_LIMIT):
            exclude = sorted({*self.site.exclude, *history.excluded(self._step.job)})
            self._step.requeue(f"python -m cluster resubmit {run}", exclude if self._unfit else ())
        if self._srun:
            self._srun.wait()  # of a job that Slurm ends, the ranks keep a checkpoint meanwhile
        if not again and cause not in AS_WANTED:
            raise RunFailure("; ".join(filter(None, [f"{cause}: {detail}", why_not])))
        return str(cause)

    def _preflight(self, life: Life) -> tuple[Cause, str] | None:
        """Look at the nodes; (cause, detail) of the life's end where it ends with that."""
        names = host_names(os.environ["SLURM_JOB_NODELIST"])
        addresses = {name: node_address(name) for name in names}
        kind, recipe = self.command[:2]
        preflight = Preflight(
            Path(self.run), kind, recipe, self.site, life.number, addresses, self._environment(life), self._step
        )
        verdict = preflight()
        self._steps_before = preflight.steps
        if not verdict.passed and not self._step.terminated:
            time.sleep(SETTLE_SECONDS)
        if self._step.terminated or self._step.asked:
            return self._step.why(self.site.seconds_before_limit)
        if verdict.passed:
            return None
        if lost := lost_nodes(os.environ["SLURM_JOB_NODELIST"], life.started):
            return Cause.NODE_LOST, ", ".join(lost)
        return self._judge(verdict)

    def _judge(self, verdict: Verdict) -> tuple[Cause, str]:
        """What follows from a preflight that failed; sets aside the nodes to blame where enough others are left."""
        words = "; ".join(in_words(verdict))
        if verdict.everywhere:
            return Cause.REFUSED, f"preflight: {words}"
        if verdict.undecided:
            return Cause.CRASHED, f"preflight: {words}"
        partition = os.environ["SLURM_JOB_PARTITION"]
        excluded = {*self.site.exclude, *History(Path(self.run)).excluded(self._step.job), *verdict.nodes}
        left = set((ask("sinfo", "--noheader", f"--partition={partition}", "--Node", "--format=%N") or "").split())
        if left and len(left - excluded) < self.site.nodes:
            return Cause.PREFLIGHT, (
                f"{words}; without {', '.join(sorted(excluded))}, partition {partition} has {len(left - excluded)} "
                f"nodes, and the run needs {self.site.nodes}: mend the nodes, then `python -m cluster submit` again"
            )
        self._unfit = sorted(verdict.nodes)
        return Cause.PREFLIGHT, f"set aside {', '.join(self._unfit)}: {words}"

    def _live(self, life: Life) -> tuple[Cause, str]:
        logs = Path(self.run) / "logs" / f"life-{life.number}"
        logs.mkdir(parents=True, exist_ok=True)
        command = self._srun_command(logs)
        print(shlex.join(command), flush=True)
        # In a session of its own: srun passes on to the ranks what is sent to the batch step's processes as a group.
        environment = {**os.environ, **self._environment(life)}
        self._srun = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
        asked_at = float("-inf")
        while self._srun.poll() is None and not self._step.terminated:
            if self._step.asked and time.monotonic() - asked_at > ASK_AGAIN_SECONDS:
                asked_at = time.monotonic()
                print("the job is to make way: the ranks are asked to keep a checkpoint and end", flush=True)
                ask("scancel", "--signal=TERM", f"{self._step.job}.{self._steps_before}")
            time.sleep(POLL_SECONDS)
        if not self._step.terminated:
            time.sleep(SETTLE_SECONDS)
        return self._cause(life, self._srun.poll())

    def _cause(self, life: Life, code: int | None) -> tuple[Cause, str]:
        newest = newest_checkpoint(Path(self.run))
        if code == 0 and newest and newest.finished:
            return Cause.DONE, ""
        if self._step.terminated or self._step.asked or code == 0:
            return self._step.why(self.site.seconds_before_limit)
        if lost := lost_nodes(os.environ["SLURM_JOB_NODELIST"], life.started):
            return Cause.NODE_LOST, ", ".join(lost)
        logs = f"logs/life-{life.number}"
        why = why_ranks_ended(Path(self.run) / logs) or f"srun ended with {code}"
        return Cause.REFUSED if code == InvalidInput.exit_code else Cause.CRASHED, f"{why}; see {logs}"

    def _srun_command(self, logs: Path) -> list[str]:
        site = self.site
        return [
            "srun",
            "--kill-on-bad-exit=1",
            "--unbuffered",
            f"--nodes={site.nodes}",
            f"--ntasks={site.nodes * site.ranks_per_node}",
            f"--ntasks-per-node={site.ranks_per_node}",
            f"--cpus-per-task={site.cpus_per_rank}",
            f"--output={logs}/rank-%t.log",
            *(sys.executable, "-m", "cluster.slurm.rank"),
            *self.command,
        ]

    def _environment(self, life: Life) -> dict[str, str]:
        first = host_names(os.environ["SLURM_JOB_NODELIST"])[0]
        return {
            "OMP_NUM_THREADS": str(self.site.cpus_per_rank),
            "PYTHONUNBUFFERED": "1",
            **self.site.environment,
            "MASTER_ADDR": node_address(first),
            "MASTER_PORT": str(FIRST_PORT + (int(self._step.job) + 1009 * life.number) % PORTS),
        }
