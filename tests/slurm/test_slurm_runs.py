"""Runs submitted to a real Slurm: whatever happens to them, they end with the weights of the undisturbed run."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from slurm_hosts import wait_for
from tiny import pretrain_recipe

from cluster.record.history import Cause, History
from rrcm_dist.config.load import dump_recipe

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

STEPS, SECONDS = 160, 120
SITE = """
backend: slurm
nodes: {nodes}
ranks_per_node: {ranks_per_node}
gpus_per_node: 0
cpus_per_rank: 1
time_limit: 10
partition: {partition}
seconds_before_limit: 30
device: cpu
preflight: false
"""


def try_to(slurm, folder, *command):
    """`python -m cluster COMMAND` on the login node, which may fail."""
    return subprocess.run(
        [sys.executable, "-m", "cluster", *command],
        capture_output=True, text=True, timeout=SECONDS, env=slurm.environment(), cwd=folder,
    )  # fmt: skip


def call(slurm, folder, *command):
    """What such a command says."""
    done = try_to(slurm, folder, *command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def submit(slurm, folder, shards, nodes=1, ranks_per_node=2, partition="main", overrides=()):
    """Job number of a run in `folder`/run."""
    write_recipe(folder, shards)
    (folder / "site.yaml").write_text(SITE.format(nodes=nodes, ranks_per_node=ranks_per_node, partition=partition))
    call(slurm, folder, "submit", "pretrain", "recipe.yaml", *overrides, "--site", "site.yaml")
    return int(History(folder / "run").jobs()[-1]["job"])


def write_recipe(folder, shards):
    recipe = pretrain_recipe(shards, folder / "run", steps=STEPS, checkpoint_every=25, log_every=5)
    recipe = recipe.model_copy(update={"knn": recipe.knn.model_copy(update={"every": STEPS})})
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))


def wait_for_step(folder, step):
    """Return when the run has logged this step."""
    file = folder / "run" / "metrics.jsonl"
    wait_for(lambda: file.exists() and f'"step": {step},' in file.read_text(), SECONDS, f"step {step}, {tails(folder)}")


def tails(folder):
    logs = sorted((folder / "run").glob("logs/*/*.log")) + sorted((folder / "run").glob("cluster/*/*.out"))
    return "\n".join(f"{log}: {log.read_text()[-1500:]}" for log in logs)


def weights(folder):
    """Tensors by name of the finished run."""
    checkpoint = folder / "run" / "checkpoints" / f"step-{STEPS:09}"
    assert json.loads((checkpoint / "manifest.json").read_text())["progress"]["finished"], tails(folder)
    networks = [load_file(checkpoint / f"{name}.safetensors") for name in ("online", "target")]
    return {(place, name): value for place, network in enumerate(networks) for name, value in network.items()}


def assert_same(folder, undisturbed):
    """Bit for bit."""
    found = weights(folder)
    assert found.keys() == undisturbed.keys()
    different = {name: (value - found[name]).abs().max() for name, value in undisturbed.items()}
    assert all(torch.equal(value, found[name]) for name, value in undisturbed.items()), different


def causes(folder):
    return [life.cause for life in History(folder / "run").lives()]


def rank_process(slurm, folder, rank):
    """Number, as this machine counts, of the process of a rank."""
    for process in itertools.chain(*slurm.processes().values()):
        try:
            words = Path(f"/proc/{process}/cmdline").read_text().split("\0")
            environment = Path(f"/proc/{process}/environ").read_text().split("\0")
        except OSError:
            continue
        if "cluster.slurm.rank" in words and "srun" not in words[0] and f"SLURM_PROCID={rank}" in environment:
            return process
    raise AssertionError(f"rank {rank} does not run: {tails(folder)}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, digits):
    """Weights of two ranks on this machine, without Slurm."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_recipe(folder, digits)
    options = ("--ranks", "2", "--threads", "1", "--device", "cpu")
    command = [sys.executable, "-m", "cluster", "submit", "pretrain", str(folder / "recipe.yaml"), *options]
    subprocess.run(command, check=True, capture_output=True)
    return weights(folder)


@pytest.mark.parametrize(("nodes", "ranks_per_node"), [pytest.param(1, 2, marks=pytest.mark.exhaustive), (2, 1)])
def test_two_ranks_on_one_node_or_two_train_the_run_of_two_ranks_here(
    slurm, tmp_path, digits, undisturbed, nodes, ranks_per_node
):
    job = submit(slurm, tmp_path, digits, nodes, ranks_per_node)
    assert slurm.wait_for_end(job, SECONDS) == "COMPLETED", tails(tmp_path)
    assert_same(tmp_path, undisturbed)
    assert causes(tmp_path) == [Cause.DONE]


@pytest.mark.exhaustive
def test_four_ranks_on_two_nodes_train_the_same_run_to_rounding(slurm, tmp_path, digits, undisturbed):
    job = submit(slurm, tmp_path, digits, nodes=2, ranks_per_node=2)
    assert slurm.wait_for_end(job, SECONDS) == "COMPLETED", tails(tmp_path)
    found = weights(tmp_path)
    # Adam divides by the gradient's own size: rounding grows to a share of the learning rate (1e-3) a step.
    worst = max((value - found[name]).abs().max().item() for name, value in undisturbed.items())
    assert worst < 1e-3, worst


def test_a_requeued_run_goes_on_as_if_nothing_had_happened(slurm, tmp_path, digits, undisturbed):
    job = submit(slurm, tmp_path, digits)
    wait_for_step(tmp_path, 60)
    slurm.requeue(job)
    assert slurm.wait_for_end(job, SECONDS) == "COMPLETED", tails(tmp_path)
    assert_same(tmp_path, undisturbed)
    assert causes(tmp_path) == [Cause.REQUEUED, Cause.DONE]
    assert History(tmp_path / "run").lives()[1].start_step >= 60


def test_a_killed_rank_stops_all_and_the_run_goes_on(slurm, tmp_path, digits, undisturbed):
    job = submit(slurm, tmp_path, digits, nodes=2, ranks_per_node=1)
    wait_for_step(tmp_path, 60)
    os.kill(rank_process(slurm, tmp_path, 1), signal.SIGKILL)
    slurm.skip_requeue_delay(job)
    assert slurm.wait_for_end(job, SECONDS) == "COMPLETED", tails(tmp_path)
    assert_same(tmp_path, undisturbed)
    assert causes(tmp_path) == [Cause.CRASHED, Cause.DONE], tails(tmp_path)


@pytest.mark.parametrize(("event", "cause"), [
    ("signal to the job", Cause.REQUEUED),
    pytest.param("signal to the ranks", Cause.REQUEUED, marks=pytest.mark.exhaustive),
    ("time limit", Cause.TIME_LIMIT),
    ("preemption with grace", Cause.PREEMPTED),
])  # fmt: skip
def test_who_is_told_in_time_loses_no_step(slurm, tmp_path, digits, undisturbed, event, cause):
    """The only checkpoint but the last is the one that the ranks were asked for."""
    partition = "low" if "preemption" in event else "main"
    job = submit(slurm, tmp_path, digits, partition=partition, overrides=[f"training.checkpoint_every={STEPS}"])
    wait_for_step(tmp_path, 60)
    if "signal" in event:
        slurm.run("scancel", "--signal=USR2", *(["--batch"] if "job" in event else []), str(job))
    elif event == "time limit":
        ranks = [rank_process(slurm, tmp_path, rank) for rank in (0, 1)]
        for rank in ranks:  # Slurm looks at limits every 30 s: the run would be done
            os.kill(rank, signal.SIGSTOP)
        slurm.run("scontrol", "update", f"jobid={job}", "TimeLimit=1")
        wait_for(lambda: "is to make way" in slurm.output(job), SECONDS, "Slurm warns of the limit")
        for rank in ranks:
            os.kill(rank, signal.SIGCONT)
        slurm.wait_for_state(job, "PENDING", seconds=SECONDS)
        slurm.run("scontrol", "update", f"jobid={job}", "TimeLimit=10")
    else:
        slurm.sbatch("true", "--nodes=2", "--exclusive")
    slurm.skip_requeue_delay(job)
    assert slurm.wait_for_end(job, SECONDS) == "COMPLETED", tails(tmp_path)
    assert_same(tmp_path, undisturbed)
    first, second = History(tmp_path / "run").lives()
    assert (first.cause, second.cause) == (cause, Cause.DONE), tails(tmp_path)
    assert first.end_step == second.start_step >= 60


@pytest.mark.exhaustive
def test_a_run_that_misses_its_limit_goes_on(slurm, tmp_path, digits, undisturbed):
    """Slurm does not requeue what it ends at the limit: the supervisor does."""
    job = submit(slurm, tmp_path, digits)
    wait_for_step(tmp_path, 60)
    for rank in (0, 1):
        os.kill(rank_process(slurm, tmp_path, rank), signal.SIGSTOP)
    slurm.run("scontrol", "update", f"jobid={job}", "TimeLimit=1")
    slurm.wait_for_state(job, "PENDING", seconds=SECONDS)
    slurm.run("scontrol", "update", f"jobid={job}", "TimeLimit=10")
    slurm.skip_requeue_delay(job)
    assert slurm.wait_for_end(job, SECONDS) == "COMPLETED", tails(tmp_path)
    assert_same(tmp_path, undisturbed)
    assert causes(tmp_path) == [Cause.TIME_LIMIT, Cause.DONE], tails(tmp_path)


@pytest.mark.exhaustive
def test_who_is_preempted_without_grace_goes_on(slurm, tmp_path, digits, undisturbed):
    job = submit(slurm, tmp_path, digits, partition="low-now")
    wait_for_step(tmp_path, 60)
    high = slurm.sbatch("true", "--nodes=2", "--exclusive")
    slurm.wait_for_end(high)
    slurm.skip_requeue_delay(job)
    assert slurm.wait_for_end(job, SECONDS) == "COMPLETED", tails(tmp_path)
    assert_same(tmp_path, undisturbed)
    assert causes(tmp_path) == [Cause.PREEMPTED, Cause.DONE], tails(tmp_path)


@pytest.mark.parametrize("nodes", [pytest.param(1, marks=pytest.mark.exhaustive), 2])
def test_a_dead_node_is_replaced(slurm, tmp_path, digits, undisturbed, nodes):
    """The only one, with the supervisor on it, by the other; the second of two by itself, when it has power again."""
    job = submit(slurm, tmp_path, digits, nodes, 2 // nodes)
    wait_for_step(tmp_path, 60)
    dead = slurm.job(job)["NodeList"] if nodes == 1 else "node2"
    slurm.kill_node(dead)
    slurm.wait_for_state(job, "PENDING")
    if nodes == 2:
        slurm.start_node(dead)
    slurm.skip_requeue_delay(job)
    assert slurm.wait_for_end(job, SECONDS) == "COMPLETED", tails(tmp_path)
    assert_same(tmp_path, undisturbed)
    assert causes(tmp_path) == [Cause.NODE_LOST, Cause.DONE], tails(tmp_path)


@pytest.mark.exhaustive
def test_slurms_daemons_may_die_under_a_run(slurm, tmp_path, digits, undisturbed):
    job = submit(slurm, tmp_path, digits)
    slurm.wait_for_state(job, "RUNNING")
    slurm.wait_until_saved()
    slurm.kill_slurmctld()
    slurm.kill_slurmd("node1")
    slurm.start_slurmd("node1")
    slurm.start_slurmctld()
    assert slurm.wait_for_end(job, SECONDS) == "COMPLETED", tails(tmp_path)
    assert_same(tmp_path, undisturbed)
    assert causes(tmp_path) == [Cause.DONE]


def test_a_cancelled_run_is_resubmitted_and_watched(slurm, tmp_path, digits, undisturbed):
    job = submit(slurm, tmp_path, digits)
    wait_for_step(tmp_path, 60)
    again = try_to(slurm, tmp_path, "submit", "pretrain", "recipe.yaml", "--site", "site.yaml")
    assert again.returncode == 2
    assert f"belongs to job {job}, which is RUNNING" in again.stderr
    seen = call(slurm, tmp_path, "status", str(job))
    assert f"job {job}, RUNNING" in seen
    assert f" of {STEPS}, " in seen
    assert "images/s" in seen
    assert "life-0 rank-1: " in call(slurm, tmp_path, "logs", "run")

    assert f"job {job} is cancelled" in call(slurm, tmp_path, "cancel", "run")
    assert slurm.wait_for_end(job, SECONDS) == "CANCELLED"
    assert f"job {job}, CANCELLED" in call(slurm, tmp_path, "status", "run")
    assert "neither queued nor running" in try_to(slurm, tmp_path, "cancel", "run").stderr

    call(slurm, tmp_path, "resubmit", "run")
    followed = call(slurm, tmp_path, "logs", "run", "-f", "--lines", "0")
    assert "life-1 rank-0: resuming from" in followed
    assert "job: life 1 ended: done" in followed
    assert_same(tmp_path, undisturbed)
    assert causes(tmp_path) == [Cause.CANCELLED, Cause.DONE]
    seen = call(slurm, tmp_path, "status", "run")
    assert "COMPLETED" in seen
    assert ": finished" in seen
    assert "nothing is left to do" in try_to(slurm, tmp_path, "resubmit", "run").stderr


@pytest.mark.parametrize(("line", "told"), [
    ("partition: mian", "there is no partition mian: choose main"),
    ("partition: short", "time_limit 10 min is more than partition short allows: 2"),
    ("account: nobody", "there is no account nobody: choose lab"),
    ("gpus_per_node: 9", "gpus_per_node 9 is more than a node of partition main has: 8"),
    ("nodes: 3", "nodes 3 is more than partition main has: 2"),
    ("options: {reservation: nobodys}", "the job was not queued: "),
])  # fmt: skip
def test_what_the_cluster_does_not_have_is_told_before_anything_is_queued(slurm, tmp_path, digits, line, told):
    write_recipe(tmp_path, digits)
    key = line.split(":")[0]
    site = SITE.format(nodes=1, ranks_per_node=2, partition="main").splitlines()
    (tmp_path / "site.yaml").write_text("\n".join([*(old for old in site if old.split(":")[0] != key), line]))
    refused = try_to(slurm, tmp_path, "submit", "pretrain", "recipe.yaml", "--site", "site.yaml")
    assert refused.returncode in (1, 2)
    assert told in refused.stderr
    assert slurm.run("squeue", "--noheader") == ""


def test_a_job_of_somebody_else_is_not_touched(slurm, tmp_path):
    job = slurm.sbatch("sleep 20")
    for name in ("status", "cancel", "resubmit", "logs"):
        refused = try_to(slurm, tmp_path, name, str(job))
        assert refused.returncode == 2
        assert f"job {job} is not a run of ours" in refused.stderr or f"knows no job {job}" in refused.stderr
    assert slurm.job(job)["JobState"] == "RUNNING"
    assert "knows no job 987654" in try_to(slurm, tmp_path, "status", "987654").stderr
