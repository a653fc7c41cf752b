"""Certifications on a real Slurm with a real Ray of their own: whatever happens, the ledger of one process."""

import json
import re
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from slurm_certification import (
    SECONDS,
    await_that,
    call,
    counters,
    facts,
    hosts,
    left_over,
    prepare,
    stored,
    submit,
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
    slurm, tmp_path, digits, undisturbed
):
    folder = prepare(tmp_path / "sweep", digits, slow="0.2")
    head, array = submit(slurm, folder)
    await_that(folder, lambda: hosts(counters(folder)) == {"node1", "node2"})
    assert_dashboard_asks_for_the_token(folder)
    seen = call(slurm, folder, "status", "run")
    assert f"job {head}, RUNNING" in seen
    assert "RUNNING: 2 workers running, 0 pending" in seen
    assert "on 2 workers" in seen

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
    seen = call(slurm, folder, "status", "run")
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
    call(slurm, folder, "cancel", "run")
    assert slurm.wait_for_end(head) == "CANCELLED"
    wait_for(lambda: not tasks(slurm, array), 30, "the workers leave")
    wait_for(lambda: not left_over(slurm), 30, "nothing is left")
    assert f"job {head}, CANCELLED" in call(slurm, folder, "status", "run")
    assert 0 < len(stored(folder)) < len(undisturbed)
    tell(folder, "0")
    call(slurm, folder, "resubmit", "run")
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
def test_a_worker_near_its_time_limit_leaves_and_comes_back(slurm, tmp_path, digits, undisturbed):
    folder = prepare(tmp_path / "sweep", digits, slow="0.2")
    head, array = submit(slurm, folder)
    await_that(folder, lambda: hosts(counters(folder)) == {"node1", "node2"})
    asked = tasks(slurm, array)["node2"]
    slurm.run("scancel", "--signal=USR2", "--batch", asked)
    slurm.skip_requeue_delay(asked)
    before = counters(folder)
    await_that(folder, lambda: "node2" in hosts(counters(folder) - before))
    tell(folder, "0")
    assert slurm.wait_for_end(head, SECONDS) == "COMPLETED", tails(folder)
    assert stored(folder) == undisturbed
    assert [life.cause for life in History(folder / "run").lives()] == [Cause.DONE]


@pytest.mark.exhaustive
def test_without_workers_the_head_counts_by_itself(slurm, tmp_path, digits, undisturbed):
    folder = prepare(tmp_path / "sweep", digits, workers=0)
    call(slurm, folder, "submit", "certify", "recipe.yaml", "--site", "site.yaml")
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
    assert re.search(r"[24] workers of one GPU each", log.read_text())
    assert "--device cuda" in (folder / "run/cluster/submission-1").joinpath(f"{head}_0_log.out").read_text()
    call(slurm, folder, "cancel", "run")
