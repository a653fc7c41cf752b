"""Certifications on a real Slurm with a real Ray of their own: whatever happens, the ledger of one process."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from slurm_certification import (
    SECONDS,
    await_that,
    commands,
    counters,
    facts,
    hosts,
    left_over,
    prepare,
    stored,
    submit,
    sweeps,
    tails,
    tasks,
    tell,
)
from slurm_hosts import wait_for

from cluster.ray_nodes.facts import TOKEN
from cluster.record.history import Cause, History

pytestmark = [pytest.mark.slow, pytest.mark.distributed]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, digits):
    """The ledger of one process on this machine."""
    folder = prepare(tmp_path_factory.mktemp("undisturbed") / "here", digits)
    command = [sys.executable, "-m", "rrcm_dist.cli.main", "certify", "recipe.yaml", "--device", "cpu"]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    assert len(stored(folder)) > 300
    return stored(folder)


def test_workers_are_preempted_and_the_head_requeued_and_the_ledger_is_that_of_one_process(
    slurm, tmp_path, digits, undisturbed, monkeypatch
):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "that of another cluster")
    folder = prepare(tmp_path / "sweep", digits, slow="0.2")
    head, array = submit(slurm, folder)
    await_that(folder, lambda: hosts(counters(folder)) == {"node1", "node2"})
    assert_dashboard_asks_for_the_token(folder)
    # The head tells how many count a little after the second has begun to.
    await_that(folder, lambda: "on 2 workers" in slurm.launch(folder, "status", "run"))
    seen = slurm.launch(folder, "status", "run")
    assert f"job {head}, RUNNING" in seen
    assert "RUNNING: 2 workers running, 0 pending" in seen

    await_that(folder, lambda: len(stored(folder)) > 10)
    away = next(node for node in ("node1", "node2") if node != slurm.job(head)["NodeList"])
    preempted = tasks(slurm, array)[away]
    intruder = slurm.sbatch("sleep 2", "--partition=main", f"--nodelist={away}", "--mem=7000M")
    slurm.wait_for_state(preempted, "PENDING")
    slurm.requeue(head)
    slurm.wait_for_end(intruder)
    slurm.skip_requeue_delay(preempted)
    before = counters(folder)
    await_that(folder, lambda: facts(folder)["life"] == 1)
    await_that(folder, lambda: hosts(counters(folder) - before) == {"node1", "node2"})
    assert len(stored(folder)) < len(undisturbed)
    tell(folder, "0")

    assert slurm.wait_for_end(head, SECONDS) == "COMPLETED", tails(folder)
    assert stored(folder) == undisturbed
    lives = History(folder / "run").lives()
    assert [life.cause for life in lives] == [Cause.REQUEUED, Cause.DONE]
    assert 0 < lives[1].start_step < lives[1].end_step
    wait_for(lambda: not tasks(slurm, array), 30, "the workers leave")
    wait_for(lambda: not left_over(slurm), 30, "nothing is left")
    threads = {path.name.rsplit("-", 1)[1] for path in folder.glob("counts-node*")}
    assert threads == {"1", "2"}  # cpus_per_rank; one where the weights are looked at
    seen = slurm.launch(folder, "status", "run")
    assert "done: nothing is left to draw" in seen


def assert_dashboard_asks_for_the_token(folder):
    token = folder / "run/cluster/submission-1" / TOKEN
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    url = facts(folder)["dashboard"]
    assert url.startswith("http://10.77.")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}/nodes?view=summary", timeout=20)
    request = urllib.request.Request(f"{url}/nodes?view=summary")
    request.add_header("Authorization", f"Bearer {token.read_text()}")
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 200
        assert len(json.loads(answer.read())["data"]["summary"]) == 3


@pytest.mark.exhaustive
def test_two_certifications_on_the_same_hosts_never_meet(slurm, tmp_path, digits, undisturbed):
    folders = [prepare(tmp_path / name, digits, slow="0.2", memory="2000M") for name in ("one", "other")]
    jobs = [submit(slurm, folder) for folder in folders]
    for folder in folders:
        await_that(folder, lambda folder=folder: len(counters(folder)) == 2)
    assert hosts(counters(folders[0])) & hosts(counters(folders[1]))
    assert len({facts(folder)["address"] for folder in folders}) == 2
    assert len({Path(facts(folder)["token_file"]).read_text() for folder in folders}) == 2
    refused = urllib.request.Request(f"{facts(folders[0])['dashboard']}/nodes?view=summary")
    refused.add_header("Authorization", f"Bearer {Path(facts(folders[1])['token_file']).read_text()}")
    with pytest.raises(urllib.error.HTTPError, match=r"40\d"):
        urllib.request.urlopen(refused, timeout=20)
    tell(folders[0], "0")
    assert slurm.wait_for_end(jobs[0][0], SECONDS) == "COMPLETED", tails(folders[0])
    assert slurm.job(jobs[1][0])["JobState"] != "COMPLETED"
    tell(folders[1], "0")
    assert slurm.wait_for_end(jobs[1][0], SECONDS) == "COMPLETED", tails(folders[1])
    assert [stored(folder) for folder in folders] == [undisturbed, undisturbed]
    assert [[life.cause for life in History(folder / "run").lives()] for folder in folders] == [[Cause.DONE]] * 2
    wait_for(lambda: not left_over(slurm), 30, "nothing is left")


@pytest.mark.exhaustive
def test_a_cancelled_certification_takes_its_workers_along_and_is_resubmitted(slurm, tmp_path, digits, undisturbed):
    folder = prepare(tmp_path / "sweep", digits, slow="0.2")
    head, array = submit(slurm, folder)
    await_that(folder, lambda: counters(folder))
    slurm.launch(folder, "cancel", "run")
    assert slurm.wait_for_end(head) == "CANCELLED"
    wait_for(lambda: not tasks(slurm, array), 30, "the workers leave")
    wait_for(lambda: not left_over(slurm), 30, "nothing is left")
    assert f"job {head}, CANCELLED" in slurm.launch(folder, "status", "run")
    assert 0 < len(stored(folder)) < len(undisturbed)
    tell(folder, "0")
    slurm.launch(folder, "resubmit", "run")
    assert slurm.wait_for_end(int(History(folder / "run").jobs()[-1]["job"]), SECONDS) == "COMPLETED", tails(folder)
    assert stored(folder) == undisturbed
    assert [life.cause for life in History(folder / "run").lives()] == [Cause.CANCELLED, Cause.DONE]


@pytest.mark.exhaustive
def test_a_head_whose_node_dies_goes_on_elsewhere_and_its_workers_follow(slurm, tmp_path, digits, undisturbed):
    folder = prepare(tmp_path / "sweep", digits, slow="0.2")
    head, _ = submit(slurm, folder)
    await_that(folder, lambda: hosts(counters(folder)) == {"node1", "node2"})
    dead = slurm.job(head)["NodeList"]
    slurm.kill_node(dead)
    slurm.wait_for_state(head, "PENDING")
    slurm.skip_requeue_delay(head)
    before = counters(folder)
    await_that(folder, lambda: counters(folder) - before)
    tell(folder, "0")
    assert slurm.wait_for_end(head, SECONDS) == "COMPLETED", tails(folder)
    assert stored(folder) == undisturbed
    assert [life.cause for life in History(folder / "run").lives()] == [Cause.NODE_LOST, Cause.DONE]


@pytest.mark.exhaustive
def test_a_worker_and_a_head_near_their_time_limits_leave_and_come_back(slurm, tmp_path, digits, undisturbed):
    folder = prepare(tmp_path / "sweep", digits, slow="0.2")
    head, array = submit(slurm, folder)
    await_that(folder, lambda: hosts(counters(folder)) == {"node1", "node2"})
    worker = tasks(slurm, array)["node2"]
    for asked in (worker, head):
        before = counters(folder)
        slurm.run("scancel", "--signal=USR2", "--batch", str(asked))
        slurm.skip_requeue_delay(asked)
        await_that(folder, lambda before=before: "node2" in hosts(counters(folder) - before))
    tell(folder, "0")
    assert slurm.wait_for_end(head, SECONDS) == "COMPLETED", tails(folder)
    assert stored(folder) == undisturbed
    assert [life.cause for life in History(folder / "run").lives()] == [Cause.REQUEUED, Cause.DONE]


@pytest.mark.exhaustive
def test_a_killed_sweep_is_a_crash_from_which_the_head_goes_on(slurm, tmp_path, digits, undisturbed):
    folder = prepare(tmp_path / "sweep", digits, slow="0.2")
    head, _ = submit(slurm, folder)
    await_that(folder, lambda: counters(folder) and len(stored(folder)) > 10)
    (sweep,) = sweeps(slurm)
    os.kill(sweep, signal.SIGKILL)
    slurm.skip_requeue_delay(head)
    await_that(folder, lambda: sweeps(slurm) and facts(folder)["life"] == 1)
    tell(folder, "0")
    assert slurm.wait_for_end(head, SECONDS) == "COMPLETED", tails(folder)
    assert stored(folder) == undisturbed
    assert [life.cause for life in History(folder / "run").lives()] == [Cause.CRASHED, Cause.DONE]


@pytest.mark.exhaustive
def test_a_worker_whose_ray_dies_starts_it_again(slurm, tmp_path, digits, undisturbed):
    folder = prepare(tmp_path / "sweep", digits, slow="0.2")
    head, _ = submit(slurm, folder)
    await_that(folder, lambda: hosts(counters(folder)) == {"node1", "node2"})
    before = counters(folder)
    (other,) = {"node1", "node2"} - {slurm.job(head)["NodeList"]}
    (raylet,) = [pid for pid in slurm.processes()[other] if "raylet/raylet " in commands(slurm).get(pid, "")]
    os.kill(raylet, signal.SIGKILL)
    await_that(folder, lambda: other in hosts(counters(folder) - before))
    tell(folder, "0")
    assert slurm.wait_for_end(head, SECONDS) == "COMPLETED", tails(folder)
    assert stored(folder) == undisturbed
    assert [life.cause for life in History(folder / "run").lives()] == [Cause.DONE]


@pytest.mark.exhaustive
def test_without_workers_the_head_counts_by_itself(slurm, tmp_path, digits, undisturbed):
    folder = prepare(tmp_path / "sweep", digits, workers=0)
    slurm.launch(folder, "submit", "certify", "recipe.yaml", "--site", "site.yaml")
    submission = History(folder / "run").jobs()[-1]
    assert "workers" not in submission
    assert slurm.wait_for_end(int(submission["job"]), SECONDS) == "COMPLETED", tails(folder)
    assert stored(folder) == undisturbed


@pytest.mark.exhaustive
def test_a_sweep_on_gpus_waits_for_the_first_and_has_an_actor_for_each(slurm, tmp_path, digits):
    """Of GPUs that are device files without a device: there Ray starts actors, and torch sees none."""
    folder = prepare(tmp_path / "sweep", digits, gpus=2)
    head, _ = submit(slurm, folder)
    log = folder / "run/logs/life-0/certify.log"
    await_that(folder, lambda: log.exists() and "torch sees no GPU here, though Ray gave one" in log.read_text())
    assert re.search(r"[24] workers of GPU each", log.read_text())
    assert "--device cuda" in (folder / "run/cluster/submission-1").joinpath(f"{head}_0_log.out").read_text()
    slurm.launch(folder, "cancel", "run")


@pytest.mark.parametrize(("key", "value", "told"), [
    ("worker_partition", "lwo", "certification, a worker job: there is no partition lwo: choose main"),
    ("head_partition", "short", "certification, a head job: time_limit 10 min is more than partition short allows: 2"),
    ("gpus_per_worker", 9, "certification, a worker job: gpus_per_node 9 is more than a node of partition low-now has"),
])  # fmt: skip
def test_what_the_cluster_does_not_have_for_a_certification_is_told_before_anything_is_queued(
    slurm, tmp_path, digits, key, value, told
):
    folder = prepare(tmp_path / "sweep", digits)
    site = yaml.safe_load((folder / "site.yaml").read_text())
    site["certification"][key] = value
    (folder / "site.yaml").write_text(yaml.safe_dump(site))
    with pytest.raises(AssertionError, match=told):
        slurm.launch(folder, "submit", "certify", "recipe.yaml", "--site", "site.yaml")
    assert slurm.run("squeue", "--noheader") == ""
