"""Runs submitted to a real Slurm: whatever happens to them, they end with the weights of the undisturbed run."""

import signal

import pytest
from events import AT_STEP, EVENTS, Event, requeue, send, set_limit, signal_to_the_ranks, sigterm_to_the_ranks
from slurm_hosts import wait_for
from tiny_runs import SECONDS, STEPS, TinyRun, differences, undisturbed_weights

from cluster.record.history import Cause

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

IN_EVERY_RUN = {
    "scontrol requeue",
    "preemption with grace",
    "a rank killed",
    "the second of two nodes dies",
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, digits):
    return undisturbed_weights(tmp_path_factory.mktemp("undisturbed"), digits)


@pytest.fixture
def run(slurm, tmp_path, digits):
    return TinyRun(slurm, tmp_path, digits)


def assert_same(run, undisturbed):
    """Bit for bit."""
    assert not differences(run.weights(), undisturbed), run.tails()


@pytest.mark.exhaustive
@pytest.mark.parametrize(("nodes", "ranks_per_node"), [(1, 2), (2, 1)])
def test_two_ranks_on_one_node_or_two_train_the_run_of_two_ranks_here(run, undisturbed, nodes, ranks_per_node):
    run.submit(nodes, ranks_per_node)
    assert run.wait_for_end() == "COMPLETED", run.tails()
    assert_same(run, undisturbed)
    assert run.causes() == [Cause.DONE]


@pytest.mark.exhaustive
def test_four_ranks_on_two_nodes_train_the_same_run_to_rounding(run, undisturbed):
    run.submit(nodes=2, ranks_per_node=2)
    assert run.wait_for_end() == "COMPLETED", run.tails()
    # Adam divides by the gradient's own size: rounding grows to a share of the learning rate (1e-3) a step.
    worst = max(differences(run.weights(), undisturbed).values(), default=0.0)
    assert worst < 1e-3, worst


@pytest.mark.parametrize("event", [
    pytest.param(event, id=event.name, marks=[] if event.name in IN_EVERY_RUN else [pytest.mark.exhaustive])
    for event in EVENTS
])  # fmt: skip
def test_whatever_happens_a_run_ends_as_if_nothing_had(slurm, tmp_path, digits, undisturbed, event: Event):
    run = TinyRun(slurm, event.folder(tmp_path, slurm.small_disk), digits)
    run.submit(event.nodes, partition=event.partition, overrides=event.overrides)
    run.wait_for_step(AT_STEP)
    event.strike(run)
    if event.resubmitted:
        assert run.wait_for_end() == "FAILED"
        if event.told:
            assert event.told in run.call("status", "run")
        run.call("resubmit", "run")
        run.newest_job()
    assert run.wait_for_end() == "COMPLETED", run.tails()
    assert_same(run, undisturbed)
    assert run.causes() == list(event.causes), run.tails()
    if event.told_in_time:  # it loses no step: but for the last, that is the only checkpoint
        first, second = run.lives()
        assert first.end_step == second.start_step >= AT_STEP


@pytest.mark.exhaustive
@pytest.mark.parametrize("event", [signal_to_the_ranks, sigterm_to_the_ranks])
def test_loading_processes_that_are_signalled_too_disturb_nothing(run, undisturbed, event):
    run.submit(overrides=["data.workers=2"])
    run.wait_for_step(AT_STEP)
    event(run)
    assert run.wait_for_end() == "COMPLETED", run.tails()
    assert_same(run, undisturbed)
    assert run.causes() == [Cause.REQUEUED, Cause.DONE]
    first, second = run.lives()
    assert first.end_step == second.start_step >= AT_STEP


@pytest.mark.exhaustive
def test_a_fine_tuning_goes_on_alike(slurm, tmp_path, digits):
    undisturbed = undisturbed_weights(tmp_path, digits, "finetune")
    run = TinyRun(slurm, tmp_path / "slurm", digits, "finetune")
    run.submit()
    run.wait_for_step(AT_STEP)
    requeue(run)
    assert run.wait_for_end() == "COMPLETED", run.tails()
    assert_same(run, undisturbed)
    assert run.causes() == [Cause.REQUEUED, Cause.DONE]


@pytest.mark.exhaustive
def test_a_run_that_gets_nowhere_within_its_limit_is_given_up_and_says_so(run):
    """The ranks stand still from their start to the limit, in both lives."""
    run.submit()
    for number in (1, 2):
        wait_for(lambda: len(run.lives()) == number and run.ranks(), SECONDS, f"life {number}, {run.tails()}")  # noqa: B023
        send(run.ranks(), signal.SIGSTOP)
        set_limit(run)
        if number == 1:
            run.slurm.wait_for_state(run.job, "PENDING", seconds=SECONDS)
            run.slurm.run("scontrol", "update", f"jobid={run.job}", "TimeLimit=10")
            run.slurm.skip_requeue_delay(run.job)
    assert run.wait_for_end() == "TIMEOUT"
    assert "it was not tried again: two lives reached the time limit" in run.call("status", "run")


def test_a_cancelled_run_is_resubmitted_and_watched(slurm, run, undisturbed):
    job = run.submit(overrides=["knn.every=1"])  # slowly enough for all that is asked of it while it runs
    run.wait_for_step(2)
    again = run.try_to("submit", "pretrain", "recipe.yaml", "--site", "site.yaml")
    assert again.returncode == 2
    assert f"belongs to job {job}, which is RUNNING" in again.stderr
    seen = run.call("status", str(job))
    assert f"job {job}, RUNNING" in seen
    assert f" of {STEPS}, " in seen
    assert "images/s" in seen
    assert "life-0 rank-1: " in run.call("logs", "run")

    assert f"job {job} is cancelled" in run.call("cancel", "run")
    assert run.wait_for_end() == "CANCELLED"
    assert f"job {job}, CANCELLED" in run.call("status", "run")
    assert "neither queued nor running" in run.try_to("cancel", "run").stderr

    run.call("resubmit", "run")
    followed = run.call("logs", "run", "-f", "--lines", "0")
    assert "life-1 rank-0: resuming from" in followed
    assert "job: life 1 ended: done" in followed
    assert_same(run, undisturbed)
    assert run.causes() == [Cause.CANCELLED, Cause.DONE]
    seen = run.call("status", "run")
    assert "COMPLETED" in seen
    assert ": finished" in seen
    assert "nothing is left to do" in run.try_to("resubmit", "run").stderr


@pytest.mark.parametrize(("line", "told"), [
    ("partition: mian", "there is no partition mian: choose main"),
    ("partition: short", "time_limit 10 min is more than partition short allows: 2"),
    ("account: nobody", "there is no account nobody: choose lab"),
    ("gpus_per_node: 9", "gpus_per_node 9 is more than a node of partition main has: 8"),
    ("nodes: 3", "nodes 3 is more than partition main has: 2"),
    ("qos: gold", "there is no qos gold: choose normal"),
    ("cpus_per_rank: 5", "2 ranks of cpus_per_rank 5 are more than a node of partition main has: 8 CPUs"),
    ("options: {reservation: nobodys}", "the job was not queued: "),
])  # fmt: skip
def test_what_the_cluster_does_not_have_is_told_before_anything_is_queued(slurm, run, line, told):
    run.write_site()
    key, site = line.split(":")[0], run.folder / "site.yaml"
    site.write_text("\n".join([*(old for old in site.read_text().splitlines() if old.split(":")[0] != key), line]))
    refused = run.try_to("submit", "pretrain", "recipe.yaml", "--site", "site.yaml")
    assert refused.returncode in (1, 2)
    assert told in refused.stderr
    assert slurm.run("squeue", "--noheader") == ""


def test_a_job_of_somebody_else_is_not_touched(slurm, run):
    job = slurm.sbatch("sleep 20")
    for name in ("status", "cancel", "resubmit", "logs"):
        refused = run.try_to(name, str(job))
        assert refused.returncode == 2
        assert f"job {job} is not a run of ours" in refused.stderr or f"knows no job {job}" in refused.stderr
    assert slurm.job(job)["JobState"] == "RUNNING"
    assert "knows no job 987654" in run.try_to("status", "987654").stderr
