"""What may befall a run on a cluster, made to happen for real: for the tests, and for the table of their costs."""

import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slurm_hosts import wait_for
from tiny_runs import SECONDS, STEPS, TinyRun

from cluster.record.history import Cause

AT_STEP = 40
"""Steps after which it happens: past a checkpoint, before the next."""

WARNING_SECONDS = 45
"""That a new limit leaves at least, so that Slurm, which looks every 30 s, warns of it."""


@dataclass(frozen=True)
class Event:
    """Something that happens to a run at work, and what is to become of the run."""

    name: str
    strike: Callable[[TinyRun], None]
    """Makes it happen, and whatever time passes in a real cluster pass at once."""
    causes: tuple[Cause, ...]
    """Why each life is to end."""
    nodes: int = 1
    partition: str = "main"
    told_in_time: bool = False
    """Whether the run can keep a checkpoint before it ends; it is then given no other but the last."""
    small_disk: bool = False
    """Whether the run folder lies on the cluster's small disk."""
    resubmitted: bool = False
    """Whether a person has to submit it again."""
    told: str = ""
    """What the status then tells."""

    @property
    def overrides(self) -> list[str]:
        """Of the recipe."""
        return [f"training.checkpoint_every={STEPS}"] if self.told_in_time else []

    def folder(self, run: Path, small_disk: Path) -> Path:
        """Where the run is to lie: `run`, or on the small disk."""
        return small_disk / run.name if self.small_disk else run


def signal_to_the_job(run: TinyRun) -> None:
    run.event()
    run.slurm.run("scancel", "--signal=USR2", "--batch", str(run.job))
    run.slurm.skip_requeue_delay(run.job)


def signal_to_the_ranks(run: TinyRun) -> None:
    run.event()
    run.slurm.run("scancel", "--signal=USR2", str(run.job))
    run.slurm.skip_requeue_delay(run.job)


def sigterm_to_the_ranks(run: TinyRun) -> None:
    run.event()
    run.slurm.run("scancel", "--signal=TERM", str(run.job))
    run.slurm.skip_requeue_delay(run.job)


def requeue(run: TinyRun) -> None:
    run.event()
    run.slurm.requeue(run.job)


def preempt(run: TinyRun) -> None:
    run.event()
    high = run.slurm.sbatch("true", "--nodes=2", "--exclusive")
    run.slurm.wait_for_end(high, SECONDS)
    run.slurm.skip_requeue_delay(run.job)


def near_time_limit(run: TinyRun) -> None:
    """Slurm looks at limits every 30 s: the ranks stand still until it has warned, or the run would be done."""
    ranks = [run.rank_process(rank) for rank in (0, 1)]
    send(ranks, signal.SIGSTOP)
    set_limit(run)
    wait_for(lambda: "is to make way" in run.slurm.output(run.job), SECONDS, "Slurm warns of the limit")
    send(ranks, signal.SIGCONT)
    run.event()
    run.slurm.wait_for_state(run.job, "PENDING", seconds=SECONDS)
    run.slurm.run("scontrol", "update", f"jobid={run.job}", "TimeLimit=10")
    run.slurm.skip_requeue_delay(run.job)


def miss_time_limit(run: TinyRun) -> None:
    """The ranks stand still, and hear no warning."""
    send([run.rank_process(rank) for rank in (0, 1)], signal.SIGSTOP)
    set_limit(run)
    wait_for(lambda: "DUE TO TIME LIMIT" in run.slurm.output(run.job), SECONDS, "Slurm ends the job at its limit")
    run.event()
    run.slurm.wait_for_state(run.job, "PENDING", seconds=SECONDS)
    run.slurm.run("scontrol", "update", f"jobid={run.job}", "TimeLimit=10")
    run.slurm.skip_requeue_delay(run.job)


def kill_rank(run: TinyRun) -> None:
    run.event()
    send([run.rank_process(1)], signal.SIGKILL)
    run.slurm.skip_requeue_delay(run.job)


def kill_rank_twice(run: TinyRun) -> None:
    """In the second life no newer checkpoint is reached before."""
    kill_rank(run)
    log = run.output / "logs/life-1/rank-0.log"
    wait_for(lambda: log.exists() and "resuming from" in log.read_text(), SECONDS, f"life 1 resumes, {run.tails()}")
    send([run.rank_process(1)], signal.SIGKILL)


def kill_supervisor(run: TinyRun) -> None:
    run.event()
    send([run.supervisor_process()], signal.SIGKILL)


def kill_first_node(run: TinyRun) -> None:
    """The only one, the supervisor on it; the other takes its place."""
    run.event()
    run.slurm.kill_node(run.slurm.job(run.job)["NodeList"])
    run.slurm.skip_requeue_delay(run.job)


def kill_second_node(run: TinyRun) -> None:
    """It has power again when Slurm has noticed."""
    run.event()
    run.slurm.kill_node("node2")
    run.slurm.wait_for_state(run.job, "PENDING")
    run.slurm.start_node("node2")
    run.slurm.skip_requeue_delay(run.job)


def restart_first_node(run: TinyRun) -> None:
    run.event()
    run.slurm.restart_node("node1")
    run.slurm.skip_requeue_delay(run.job)


def restart_second_node(run: TinyRun) -> None:
    run.event()
    run.slurm.restart_node("node2")
    run.slurm.skip_requeue_delay(run.job)


def restart_slurmd(run: TinyRun) -> None:
    run.event()
    run.slurm.kill_slurmd("node1")
    run.slurm.start_slurmd("node1")


def restart_slurmctld(run: TinyRun) -> None:
    run.slurm.wait_until_saved(run.lives()[0].started.timestamp())
    run.event()
    run.slurm.kill_slurmctld()
    run.slurm.start_slurmctld()


def fill_disk_for_a_while(run: TinyRun) -> None:
    """There is room again before the job starts again."""
    run.event()
    run.slurm.fill_small_disk()
    run.slurm.wait_for_state(run.job, "PENDING", seconds=SECONDS)
    run.slurm.empty_small_disk()
    run.slurm.skip_requeue_delay(run.job)


def fill_disk(run: TinyRun) -> None:
    """There is room again only when the job has given up."""
    run.event()
    run.slurm.fill_small_disk()
    run.slurm.skip_requeue_delay(run.job)
    run.slurm.wait_for_end(run.job, SECONDS)
    run.slurm.empty_small_disk()


def set_limit(run: TinyRun) -> None:
    """To the next whole minute of the job that leaves Slurm the time to warn."""
    lived = time.time() - run.lives()[-1].started.timestamp()
    minutes = math.ceil((lived + WARNING_SECONDS) / 60)
    run.slurm.run("scontrol", "update", f"jobid={run.job}", f"TimeLimit={minutes}")


def send(processes: Sequence[int], number: int) -> None:
    """Send each process the signal."""
    for process in processes:
        os.kill(process, number)


DONE, CRASHED, REQUEUED, NODE_LOST = Cause.DONE, Cause.CRASHED, Cause.REQUEUED, Cause.NODE_LOST
EVENTS = [
    Event("time limit near", near_time_limit, (Cause.TIME_LIMIT, DONE), told_in_time=True),
    Event("time limit reached, warning unheard", miss_time_limit, (Cause.TIME_LIMIT, DONE)),
    Event("preemption with grace", preempt, (Cause.PREEMPTED, DONE), partition="low", told_in_time=True),
    Event("preemption without grace", preempt, (Cause.PREEMPTED, DONE), partition="low-now"),
    Event("scontrol requeue", requeue, (REQUEUED, DONE)),
    Event("USR2 to the batch step", signal_to_the_job, (REQUEUED, DONE), told_in_time=True),
    Event("USR2 to the ranks", signal_to_the_ranks, (REQUEUED, DONE), told_in_time=True),
    Event("SIGTERM to the ranks", sigterm_to_the_ranks, (REQUEUED, DONE), told_in_time=True),
    Event("a rank killed", kill_rank, (CRASHED, DONE), nodes=2),
    Event("a rank killed twice at the same place", kill_rank_twice, (CRASHED, CRASHED, DONE), resubmitted=True,
        told="it was not tried again: it crashed twice without getting beyond the checkpoint of step 25"),
    Event("the supervisor killed", kill_supervisor, (CRASHED, DONE), resubmitted=True),
    Event("the only node dies", kill_first_node, (NODE_LOST, DONE)),
    Event("the second of two nodes dies", kill_second_node, (NODE_LOST, DONE), nodes=2),
    Event("the first of two nodes starts anew, unnoticed", restart_first_node, (NODE_LOST, DONE), nodes=2),
    Event("the second of two nodes starts anew, unnoticed", restart_second_node, (NODE_LOST, DONE), nodes=2),
    Event("slurmd killed, and back", restart_slurmd, (DONE,)),
    Event("slurmctld killed, and back", restart_slurmctld, (DONE,)),
    Event("disk full, room before the next try", fill_disk_for_a_while, (CRASHED, DONE), small_disk=True),
    Event("disk full", fill_disk, (CRASHED, CRASHED, DONE), small_disk=True, resubmitted=True,
        told="it was not tried again: it crashed twice"),
]  # fmt: skip
