"""Nodes that are unfit are named before a run begins on them, set aside, and the run goes on elsewhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from slurm_cluster import SlurmCluster
from slurm_hosts import wait_for
from tiny import pretrain_recipe

from cluster.record.history import Cause, History
from rrcm_dist.config.load import dump_recipe

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

STEPS, SECONDS = 20, 120
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
    options = ("--ranks", "2", "--threads", "1", "--device", "cpu")
    command = [sys.executable, "-m", "cluster", "submit", "pretrain", str(folder / "recipe.yaml"), *options]
    subprocess.run(command, check=True, capture_output=True)
    return weights(folder)


def write_recipe(folder, shards):
    recipe = pretrain_recipe(shards, folder / "run", steps=STEPS, checkpoint_every=STEPS, log_every=5)
    recipe = recipe.model_copy(
        update={
            "knn": recipe.knn.model_copy(update={"every": STEPS}),
            "data": recipe.data.model_copy(update={"workers": 1}),
        }
    )
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))


def call(slurm, folder, *command):
    """What `python -m cluster COMMAND` says on the login node."""
    done = subprocess.run(
        [sys.executable, "-m", "cluster", *command],
        capture_output=True, text=True, timeout=SECONDS, env=slurm.environment(), cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def submit(slurm, folder, shards, **site):
    """Job number of a run in `folder`/run."""
    write_recipe(folder, shards)
    (folder / "site.yaml").write_text(json.dumps({**SITE, **site}))
    call(slurm, folder, "submit", "pretrain", "recipe.yaml", "--site", "site.yaml")
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


def lives(folder):
    return History(folder / "run").lives()


def log(folder):
    logs = [*(folder / "run").glob("cluster/*/*.out"), *(folder / "run").glob("logs/*/*.log")]
    return "\n".join(file.read_text() for file in logs)


def report(folder, life=0):
    return json.loads((folder / "run" / "cluster" / "preflight" / f"life-{life}" / "report.json").read_text())


def test_a_node_that_is_unfit_is_set_aside_and_the_run_goes_on_elsewhere(slurm, tmp_path, digits, undisturbed):
    """node1 has no shared memory for the loaders' queues."""
    shm = slurm.host("node1").call
    shm("mount", "-o", "remount,size=64k", "/dev/shm")
    try:
        job = submit(slurm, tmp_path, digits)
        slurm.skip_requeue_delay(job)
        assert_finished(slurm, job, tmp_path, undisturbed)
    finally:
        shm("mount", "-o", "remount,size=50%", "/dev/shm")
    first, second = lives(tmp_path)
    assert (first.cause, first.excluded, second.cause) == (Cause.PREFLIGHT, ("node1",), Cause.DONE), log(tmp_path)
    assert "node1: shared memory: /dev/shm has 65.5 kB free" in first.detail
    assert slurm.job(job)["ExcNodeList"] == "node1"
    assert report(tmp_path)["passed"] is False
    assert report(tmp_path, 1)["passed"] is True
    seen = call(slurm, tmp_path, "status", "run")
    assert "preflight (set aside node1: " in seen


@pytest.mark.exhaustive
def test_healthy_nodes_pass_within_seconds(slurm, tmp_path, digits, undisturbed):
    job = submit(slurm, tmp_path, digits, nodes=2, ranks_per_node=1)
    assert_finished(slurm, job, tmp_path, undisturbed)
    assert [life.cause for life in lives(tmp_path)] == [Cause.DONE]
    assert report(tmp_path)["seconds"] < 20
    said = log(tmp_path)
    assert "all-reduce over 2 ranks by gloo, 16 MiB: algorithm" in said
    assert "preflight passed in" in said
