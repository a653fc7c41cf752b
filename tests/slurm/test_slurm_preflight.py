"""Nodes that are unfit are named before a run begins on them, set aside, and the run goes on elsewhere."""

import json
import os
import signal
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from slurm_cluster import SlurmCluster
from slurm_hosts import wait_for
from tiny import pretrain_recipe, train_here

from cluster.record.history import Cause, History
from rrcm_dist.config.estimate import checkpoint_bytes
from rrcm_dist.config.load import dump_recipe, load_recipe

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

STEPS, SECONDS = 20, 120
FILE_OVERHEAD_BYTES = 20_000
"""Of a file of a checkpoint: names and shapes, which count only where a network is tiny."""
SITE = {
    "backend": "slurm", "nodes": 1, "ranks_per_node": 2, "gpus_per_node": 0, "cpus_per_rank": 1, "time_limit": 10,
    "partition": "main", "seconds_before_limit": 30, "device": "cpu", "preflight_seconds": 60,
}  # fmt: skip


@pytest.fixture(scope="module")
def three(slurm_installed):
    """Three nodes: two for a run, one to spare."""
    with SlurmCluster(nodes=3, accounting=False) as cluster:
        yield cluster


@pytest.fixture
def three_nodes(three):
    three.tidy()
    return three


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, digits):
    """Weights of two ranks on this machine, without Slurm."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_recipe(folder, digits)
    train_here(folder / "recipe.yaml")
    return weights(folder)


def write_recipe(folder, shards, steps=STEPS):
    recipe = pretrain_recipe(shards, folder / "run", steps=steps, checkpoint_every=steps, log_every=5)
    recipe = recipe.model_copy(
        update={
            "knn": recipe.knn.model_copy(update={"every": steps}),
            "data": recipe.data.model_copy(update={"workers": 1}),
        }
    )
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))


def submit(slurm, folder, shards, steps=STEPS, **site):
    """Job number of a run in `folder`/run."""
    write_recipe(folder, shards, steps)
    (folder / "site.yaml").write_text(json.dumps({**SITE, **site}))
    slurm.launch(folder, "submit", "pretrain", "recipe.yaml", "--site", "site.yaml")
    return int(History(folder / "run").jobs()[-1]["job"])


def weights(folder):
    checkpoint = folder / "run" / "checkpoints" / f"step-{STEPS:09}"
    networks = [load_file(checkpoint / f"{name}.safetensors") for name in ("online", "target")]
    return {(place, name): value for place, network in enumerate(networks) for name, value in network.items()}


def assert_finished(slurm, job, folder, undisturbed):
    """Completed, with the undisturbed run's weights bit for bit."""
    assert slurm.wait_for_end(job, SECONDS) == "COMPLETED", log(folder)
    found = weights(folder)
    assert found.keys() == undisturbed.keys()
    assert all(torch.equal(value, found[name]) for name, value in undisturbed.items())


def go_on(slurm, job, folder):
    """When the first life has ended, let the job begin the next at once."""
    wait_for(lambda: any(life.cause for life in lives(folder)), SECONDS, "the life ends")
    slurm.skip_requeue_delay(job)


def lives(folder):
    return History(folder / "run").lives()


def log(folder):
    logs = [*(folder / "run").glob("cluster/*/*.out"), *(folder / "run").glob("logs/*/*.log")]
    return "\n".join(file.read_text() for file in logs)


def report(folder, life=0):
    return json.loads((folder / "run" / "cluster" / "preflight" / f"life-{life}" / "report.json").read_text())


@contextmanager
def fault(slurm, name, make, mend):
    """A command on a host, undone afterwards."""
    slurm.host(name).call(*make)
    try:
        yield
    finally:
        slurm.host(name).call(*mend)


def stopped(slurm, node, module):
    """Stop the processes of a node that run this module; whether there were any."""
    found = False
    for process in slurm.host(node).processes():
        with suppress(OSError):
            words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
            if module.encode() in words and b"srun" not in words[0]:
                os.kill(process, signal.SIGSTOP)
                found = True
    return found


def test_a_node_that_is_unfit_is_set_aside_and_the_run_goes_on_elsewhere(slurm, tmp_path, digits, undisturbed):
    """node1 has no shared memory for the loaders' queues."""
    remount = ("mount", "/dev/shm", "-o")
    with fault(slurm, "node1", (*remount, "remount,size=64k"), (*remount, "remount,size=50%")):
        job = submit(slurm, tmp_path, digits)
        go_on(slurm, job, tmp_path)
        assert_finished(slurm, job, tmp_path, undisturbed)
    first, second = lives(tmp_path)
    assert (first.cause, first.excluded, second.cause) == (Cause.PREFLIGHT, ("node1",), Cause.DONE), log(tmp_path)
    assert "node1: shared memory: /dev/shm has 65.5 kB free" in first.detail
    assert slurm.job(job)["ExcNodeList"] == "node1"
    assert report(tmp_path)["passed"] is False
    assert report(tmp_path, 1)["passed"] is True
    seen = slurm.launch(tmp_path, "status", "run")
    assert "preflight (set aside node1: " in seen


@pytest.mark.exhaustive
def test_a_resubmitted_run_leaves_out_the_nodes_that_were_set_aside(slurm, tmp_path, digits, undisturbed):
    remount = ("mount", "/dev/shm", "-o")
    with fault(slurm, "node1", (*remount, "remount,size=64k"), (*remount, "remount,size=50%")):
        job = submit(slurm, tmp_path, digits)
        wait_for(lambda: any(life.cause for life in lives(tmp_path)), SECONDS, "the life ends")
        slurm.wait_for_state(job, "PENDING")
        slurm.launch(tmp_path, "cancel", "run")
        slurm.wait_for_end(job, SECONDS)
        slurm.launch(tmp_path, "resubmit", "run")
        again = int(History(tmp_path / "run").jobs()[-1]["job"])
        assert_finished(slurm, again, tmp_path, undisturbed)
    assert again != job
    assert slurm.job(again)["ExcNodeList"] == "node1"


@pytest.mark.exhaustive
def test_healthy_nodes_pass_within_seconds(slurm, tmp_path, digits, undisturbed):
    job = submit(slurm, tmp_path, digits, nodes=2, ranks_per_node=1, gpus_per_node=2)
    assert_finished(slurm, job, tmp_path, undisturbed)
    assert [life.cause for life in lives(tmp_path)] == [Cause.DONE]
    assert report(tmp_path)["seconds"] < 20
    files = [file for file in (tmp_path / "run" / "checkpoints").rglob("*") if file.is_file()]
    expected = checkpoint_bytes(load_recipe(str(tmp_path / "recipe.yaml"), (), "pretrain"))
    assert expected <= sum(file.stat().st_size for file in files) <= expected + len(files) * FILE_OVERHEAD_BYTES
    said = log(tmp_path)
    assert "all-reduce over 2 ranks by gloo, 16 MiB: algorithm" in said
    assert "preflight passed in" in said


@pytest.mark.exhaustive
def test_a_node_that_sees_no_shards_is_named_and_not_those_that_do(three_nodes, tmp_path, digits, undisturbed):
    slurm, train = three_nodes, str(digits / "train")
    with fault(slurm, "node2", ("mount", "-t", "tmpfs", "tmpfs", train), ("umount", train)):
        job = submit(slurm, tmp_path, digits, nodes=2, ranks_per_node=1)
        go_on(slurm, job, tmp_path)
        assert_finished(slurm, job, tmp_path, undisturbed)
    first, second = lives(tmp_path)
    assert (first.excluded, second.cause) == (("node2",), Cause.DONE), log(tmp_path)
    assert f"node2: shards: data.train: {train} holds no index.json" in first.detail


@pytest.mark.exhaustive
def test_a_node_behind_a_firewall_is_named(three_nodes, tmp_path, digits, undisturbed):
    """The ports that ranks meet at are closed on node2, in both directions; Slurm's are not."""
    slurm = three_nodes
    rule = ("blackhole", "ipproto", "tcp", "sport", "12000-28000")
    with fault(slurm, "node2", ("ip", "rule", "add", *rule), ("ip", "rule", "delete", *rule)):
        job = submit(slurm, tmp_path, digits, nodes=2, ranks_per_node=1)
        go_on(slurm, job, tmp_path)
        assert_finished(slurm, job, tmp_path, undisturbed)
    first, second = lives(tmp_path)
    assert (first.excluded, second.cause) == (("node2",), Cause.DONE), log(tmp_path)
    assert "node2: seen from node1: network: does not get through to node2: timed out" in first.detail


@pytest.mark.exhaustive
def test_where_the_ranks_do_not_meet_pairs_of_nodes_tell_between_which(three_nodes, tmp_path, digits):
    """node3 sends nothing to node2 on the ports that gloo deals out; with all three nodes used, none is left over."""
    slurm = three_nodes
    address = slurm.network.address(2)
    rule = ("blackhole", "to", address, "ipproto", "tcp", "sport", "30000-65000", "dport", "30000-65000")
    with fault(slurm, "node3", ("ip", "rule", "add", *rule), ("ip", "rule", "delete", *rule)):
        job = submit(slurm, tmp_path, digits, nodes=3, ranks_per_node=1, preflight_seconds=25)
        assert slurm.wait_for_end(job, SECONDS) == "FAILED", log(tmp_path)
    (life,) = lives(tmp_path)
    assert (life.cause, life.excluded) == (Cause.PREFLIGHT, ()), log(tmp_path)
    assert "node3: communication fails with it: " in life.detail
    assert "without node3, partition main has 2 nodes, and the run needs 3" in life.detail


@pytest.mark.exhaustive
@pytest.mark.parametrize(("module", "told"), [("node", "node2: it "), ("rank", "node2: ")])
def test_a_node_that_hangs_is_named(three_nodes, tmp_path, digits, undisturbed, module, told):
    """In the look at it, or when the ranks meet."""
    slurm = three_nodes
    job = submit(slurm, tmp_path, digits, nodes=2, ranks_per_node=1, preflight_seconds=30)
    wait_for(lambda: stopped(slurm, "node2", f"cluster.preflight.{module}"), SECONDS, "a process to stop")
    go_on(slurm, job, tmp_path)
    assert_finished(slurm, job, tmp_path, undisturbed)
    first, second = lives(tmp_path)
    assert (first.excluded, second.cause) == (("node2",), Cause.DONE), log(tmp_path)
    assert told in first.detail


def test_what_no_node_sees_ends_the_run(slurm, tmp_path, digits):
    """The login node sees both folders, which is all that is looked at there; they hold no shards."""
    for split in ("train", "held-out"):
        (tmp_path / "nothing" / split).mkdir(parents=True)
    job = submit(slurm, tmp_path, tmp_path / "nothing", nodes=2, ranks_per_node=1)
    assert slurm.wait_for_end(job, SECONDS) == "FAILED", log(tmp_path)
    (life,) = lives(tmp_path)
    assert life.cause is Cause.REFUSED
    assert f"every node: shards: data.train: {tmp_path}/nothing/train" in life.detail


@pytest.mark.exhaustive
@pytest.mark.parametrize(("event", "cause"), [
    ("signal", Cause.REQUEUED), ("requeue", Cause.REQUEUED), ("cancel", Cause.CANCELLED),
])  # fmt: skip
def test_what_comes_during_the_preflight_ends_it_as_what_it_is(slurm, tmp_path, digits, undisturbed, event, cause):
    job = submit(slurm, tmp_path, digits)
    wait_for(lambda: stopped(slurm, "node1", "cluster.preflight.node"), SECONDS, "a process to stop")
    if event == "cancel":
        slurm.launch(tmp_path, "cancel", "run")
        assert slurm.wait_for_end(job, SECONDS) == "CANCELLED"
    elif event == "requeue":
        slurm.run("scontrol", "requeue", str(job))
    else:
        slurm.run("scancel", "--signal=USR2", "--batch", str(job))
    if event != "cancel":
        go_on(slurm, job, tmp_path)
        assert_finished(slurm, job, tmp_path, undisturbed)
    assert lives(tmp_path)[0].cause is cause, log(tmp_path)


@pytest.mark.exhaustive
def test_signals_reach_the_ranks_after_a_preflight(slurm, tmp_path, digits):
    job = submit(slurm, tmp_path, digits, steps=100)
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and '"step": 20,' in metrics.read_text(), SECONDS, "step 20")
    slurm.run("scancel", "--signal=USR2", "--batch", str(job))
    go_on(slurm, job, tmp_path)
    assert slurm.wait_for_end(job, SECONDS) == "COMPLETED", log(tmp_path)
    first, second = lives(tmp_path)
    assert (first.cause, second.cause) == (Cause.REQUEUED, Cause.DONE), log(tmp_path)
    assert first.end_step == second.start_step >= 20
