"""Runs as jobs of a real standing Ray: whatever happens to them, they end with the weights of a local one."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from standing_ray import SECONDS, processes_with, wait_for
from tiny import pretrain_recipe, train_here

from cluster.record.history import Cause, History
from rrcm_dist.config.load import dump_recipe

pytestmark = [pytest.mark.slow, pytest.mark.distributed, pytest.mark.timeout(900)]

STEPS = 100
DRIVER = "cluster.on_ray.drive"


def write_recipe(folder, shards):
    recipe = pretrain_recipe(shards, folder / "run", steps=STEPS, checkpoint_every=25, log_every=5)
    recipe = recipe.model_copy(update={"knn": recipe.knn.model_copy(update={"every": STEPS})})
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))


def submit(ray, folder, shards, *overrides):
    """Submission id of a run in `folder`/run."""
    write_recipe(folder, shards)
    ray.write_site(folder)
    ray.call(folder, "submit", "pretrain", "recipe.yaml", *overrides, "--site", "site.yaml")
    return History(folder / "run").jobs()[-1]["job"]


def wait_for_step(folder, step):
    file = folder / "run" / "metrics.jsonl"
    wait_for(lambda: file.exists() and f'"step": {step},' in file.read_text(), lambda: f"step {step}: {tails(folder)}")


def wait_for_end(ray, folder, job, state):
    ended = {"SUCCEEDED", "FAILED", "STOPPED"}
    wait_for(lambda: ray.job_state(job) in ended, lambda: f"{ray.job_state(job)}: {tails(folder)}")
    assert ray.job_state(job) == state, ray.call(folder, "logs", "run") + tails(folder)


def tails(folder):
    logs = sorted((folder / "run").glob("logs/*/*.log")) + sorted((folder / "run").glob("cluster/*.jsonl"))
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


def rank_process(folder, rank):
    """The process of a rank, which a Ray actor started."""
    for process in processes_with("cluster.rank_door", str(folder / "run")):
        if process.environ().get("RANK") == str(rank):
            return process
    raise AssertionError(f"rank {rank} does not run: {tails(folder)}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, digits):
    """Weights of two ranks on this machine, without Ray."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_recipe(folder, digits)
    train_here(folder / "recipe.yaml")
    return weights(folder)


def test_a_killed_rank_stops_all_and_the_run_ends_with_the_weights_of_a_local_one(ray, tmp_path, digits, undisturbed):
    job = submit(ray, tmp_path, digits)
    wait_for_step(tmp_path, 40)
    status = ray.call(tmp_path, "status", "run")
    assert status.startswith(f"{tmp_path / 'run'}: job {job}, RUNNING\nstep ")
    other = rank_process(tmp_path, 0)
    rank_process(tmp_path, 1).kill()
    wait_for(lambda: not other.is_running(), lambda: "rank 0 lives on", 30)
    again = ray.try_to(tmp_path, "submit", "pretrain", "recipe.yaml", "--site", "site.yaml")
    assert again.returncode == 2
    assert f"run belongs to job {job}, which is RUNNING" in again.stderr
    wait_for_end(ray, tmp_path, job, "SUCCEEDED")
    assert_same(tmp_path, undisturbed)
    crash = History(tmp_path / "run").lives()[0]
    assert causes(tmp_path) == [Cause.CRASHED, Cause.DONE]
    assert crash.detail == "rank 1 was killed by SIGKILL (out of memory?); see logs/life-0/rank-1.log"
    assert f"{job}, SUCCEEDED" in ray.call(tmp_path, "status", job)
    logs = ray.call(tmp_path, "logs", "run")
    assert "job: life 1 ended: done" in logs
    assert "life-1 rank-0: " in logs


@pytest.mark.exhaustive
def test_a_killed_node_is_lost_and_the_run_goes_on_when_there_is_room(ray, tmp_path, digits, undisturbed):
    job = submit(ray, tmp_path, digits)
    wait_for_step(tmp_path, 40)
    ray.kill_second_node()
    wait_for(lambda: causes(tmp_path)[0] is not None, lambda: tails(tmp_path))
    wait_for(
        lambda: "RUNNING: waits for room on the cluster" in ray.call(tmp_path, "status", "run"),
        lambda: ray.call(tmp_path, "status", "run"),
    )
    ray.tidy()
    assert "life-1 rank-0: " in ray.call(tmp_path, "logs", "run", "-f")
    assert ray.job_state(job) == "SUCCEEDED", tails(tmp_path)
    assert causes(tmp_path) == [Cause.NODE_LOST, Cause.DONE]
    assert_same(tmp_path, undisturbed)


@pytest.mark.exhaustive
def test_a_killed_actor_takes_its_rank_along_and_counts_as_a_crash(ray, tmp_path, digits, undisturbed):
    job = submit(ray, tmp_path, digits)
    wait_for_step(tmp_path, 40)
    rank = rank_process(tmp_path, 1)
    rank.parent().kill()
    wait_for(lambda: not rank.is_running(), lambda: "rank 1 outlives its actor", 10)
    wait_for_end(ray, tmp_path, job, "SUCCEEDED")
    assert causes(tmp_path) == [Cause.CRASHED, Cause.DONE]
    assert "Ray's actor of rank 1 on " in History(tmp_path / "run").lives()[0].detail
    assert_same(tmp_path, undisturbed)


@pytest.mark.exhaustive
def test_what_is_cancelled_keeps_a_checkpoint_and_resubmitted_goes_on_from_it(ray, tmp_path, digits, undisturbed):
    job = submit(ray, tmp_path, digits, "training.checkpoint_every=1000")
    wait_for_step(tmp_path, 30)
    assert "is cancelled" in ray.call(tmp_path, "cancel", job)
    wait_for_end(ray, tmp_path, job, "STOPPED")
    lives = History(tmp_path / "run").lives()
    assert [life.cause for life in lives] == [Cause.CANCELLED]
    assert lives[0].end_step >= 30  # kept when it was asked to, and not by the recipe
    assert ray.try_to(tmp_path, "cancel", "run").returncode == 2
    ray.call(tmp_path, "resubmit", "run")
    again = History(tmp_path / "run").jobs()[-1]["job"]
    wait_for_end(ray, tmp_path, again, "SUCCEEDED")
    assert History(tmp_path / "run").lives()[1].start_step == lives[0].end_step
    assert_same(tmp_path, undisturbed)
    done = ray.try_to(tmp_path, "resubmit", "run")
    assert done.returncode == 2
    assert "is finished" in done.stderr


@pytest.mark.exhaustive
def test_a_killed_driver_leaves_no_rank_behind(ray, tmp_path, digits):
    job = submit(ray, tmp_path, digits)
    wait_for_step(tmp_path, 10)
    ranks = [rank_process(tmp_path, rank) for rank in (0, 1)]
    for driver in processes_with(DRIVER, job):
        os.kill(driver.pid, signal.SIGKILL)
    wait_for(lambda: not any(rank.is_running() for rank in ranks), lambda: "ranks live on", 30)
    wait_for_end(ray, tmp_path, job, "FAILED")
    assert ", FAILED: " in ray.call(tmp_path, "status", "run")


@pytest.mark.exhaustive
def test_a_recipe_that_cannot_run_is_not_tried_again(ray, tmp_path, digits):
    write_recipe(tmp_path, digits)
    ray.write_site(tmp_path)
    ray.call(tmp_path, "submit", "pretrain", "recipe.yaml", "data.train=nowhere", "--site", "site.yaml")
    job = History(tmp_path / "run").jobs()[-1]["job"]
    wait_for_end(ray, tmp_path, job, "FAILED")
    assert causes(tmp_path) == [Cause.REFUSED]
    assert "FAILED: error: refused: see logs/life-0/rank-" in ray.call(tmp_path, "status", "run")


@pytest.mark.exhaustive
def test_a_certification_draws_the_same_counts_on_the_cluster_as_in_one_process(ray, tmp_path, digits):
    (tmp_path / "nets.py").write_text(
        "import torch\n"
        "def net(): torch.manual_seed(0); return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 10))\n"
    )
    recipe = {
        "kind": "certify", "name": "tiny", "output": "run", "data": str(digits / "held-out"), "image_size": 16,
        "n0": 20, "n": 1000, "block": 100, "device_batch": 100, "images": {"count": 12},
        "classifiers": [{"sigma": sigma, "function": "nets:net"} for sigma in (0.25, 0.5)],
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    ray.write_site(tmp_path)
    ray.call(tmp_path, "submit", "certify", "recipe.yaml", "--site", "site.yaml")
    job = History(tmp_path / "run").jobs()[-1]["job"]
    wait_for_end(ray, tmp_path, job, "SUCCEEDED")
    assert f"{job}, SUCCEEDED" in ray.call(tmp_path, "status", "run")
    assert "Certified accuracy" in ray.call(tmp_path, "logs", "run", "--lines", "200")
    here = [sys.executable, "-m", "rrcm_dist.cli.main", "certify", "recipe.yaml", "output=here", "--device", "cpu"]
    subprocess.run(here, check=True, capture_output=True, cwd=tmp_path, timeout=SECONDS)
    assert stored(tmp_path / "run") == stored(tmp_path / "here")
    assert len(stored(tmp_path / "run")) > 12


def stored(output: Path) -> list[tuple]:
    """Every row of the ledger's blocks, apart from who counted and how long that took."""
    with sqlite3.connect(output / "ledger.sqlite") as connection:
        query = (
            "SELECT sigmas.sigma, image, stage, number, draws, counts FROM blocks "
            "JOIN sigmas ON sigmas.id = blocks.sigma ORDER BY sigmas.sigma, image, stage, number"
        )
        return connection.execute(query).fetchall()
