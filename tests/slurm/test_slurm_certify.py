"""Certifications on a real Slurm with a real Ray of their own: whatever happens, the ledger of one process."""

import json
import re
import sqlite3
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from slurm_hosts import wait_for

from cluster.ray_nodes.facts import FACTS, TOKEN
from cluster.record.history import Cause, History

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

SECONDS = 120
CLASSIFIER = """
import os
import socket
import sys
import time
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).parent


class Linear(nn.Module):
    \"\"\"Slowed down as the file `slow` says; tells by a file who counts.\"\"\"

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(10, 3 * 16 * 16, generator=generator))

    def forward(self, x):
        if sys.argv[0].endswith("default_worker.py"):  # Ray's
            (HERE / f"counts-{socket.gethostname()}-{os.getpid()}-{torch.get_num_threads()}").touch()
        time.sleep(float((HERE / "slow").read_text()))
        return x.flatten(1) @ self.weight.T


def net():
    return Linear()
"""
RECIPE = """
kind: certify
name: digits
output: {output}
classifiers:
  - {{sigma: 0.25, function: "tiny_classifier:net"}}
  - {{sigma: 0.5, function: "tiny_classifier:net"}}
data: {shards}/held-out
image_size: 16
images: {{every: 40}}
n0: 20
n: 2000
block: 100
device_batch: 100
"""
SITE = """
backend: slurm
ranks_per_node: 1
gpus_per_node: 0
cpus_per_rank: 2
time_limit: 10
seconds_before_limit: 30
certification:
  workers: {workers}
  worker_partition: low-now
  worker_memory: 4500M
  head_cpus: 1
  head_memory: 1000M
  head_partition: main
"""


def prepare(folder, shards, workers=2, slow="0"):
    folder.mkdir(exist_ok=True)
    (folder / "tiny_classifier.py").write_text(CLASSIFIER)
    (folder / "recipe.yaml").write_text(RECIPE.format(output=folder / "run", shards=shards))
    (folder / "site.yaml").write_text(SITE.format(workers=workers))
    tell(folder, slow)
    return folder


def tell(folder, slow):
    """How long a pass is to take from now on, in seconds."""
    (folder / "aside").write_text(slow)
    (folder / "aside").replace(folder / "slow")


def call(slurm, folder, *command):
    done = subprocess.run(
        [sys.executable, "-m", "cluster", *command],
        capture_output=True, text=True, timeout=SECONDS, env=slurm.environment(), cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def submit(slurm, folder):
    """Numbers of the head job and of the array of workers."""
    call(slurm, folder, "submit", "certify", "recipe.yaml", "--site", "site.yaml")
    submission = History(folder / "run").jobs()[-1]
    return int(submission["job"]), int(submission["workers"])


def tasks(slurm, array):
    """Numbers, as in 7_1, of the array's tasks that wait or run, by the node on which they run, or ''."""
    lines = slurm.run("squeue", "--noheader", f"--jobs={array}", "--array", "--format=%N|%i").splitlines()
    return dict(line.split("|") for line in lines)


def counters(folder):
    """(host, process id there) of every worker that has begun to count."""
    return {tuple(path.name.split("-")[1:3]) for path in folder.glob("counts-node*")}


def hosts(workers):
    return {host for host, _ in workers}


def stored(folder):
    """Every row of the ledger's blocks, apart from who counted and how long that took."""
    with sqlite3.connect(folder / "run/ledger.sqlite") as connection:
        query = (
            "SELECT sigmas.sigma, image, stage, number, draws, counts FROM blocks "
            "JOIN sigmas ON sigmas.id = blocks.sigma ORDER BY sigmas.sigma, image, stage, number"
        )
        return connection.execute(query).fetchall()


def tails(folder):
    logs = sorted((folder / "run").glob("logs/*/*.log")) + sorted((folder / "run").glob("cluster/*/*.out"))
    return "\n".join(f"{log}: {log.read_text()[-2500:]}" for log in logs)


def await_that(folder, condition):
    """Return when it is true; where that takes too long, the logs say why."""
    try:
        wait_for(condition, SECONDS, "it comes about")
    except TimeoutError as error:
        raise AssertionError(tails(folder)) from error


def facts(folder, submission=1):
    return json.loads((folder / f"run/cluster/submission-{submission}" / FACTS).read_text())


def left_over(slurm):
    """What of Ray or of a sweep still runs on the nodes, and its folders."""
    found = [str(path) for path in Path("/tmp").glob("rrcm-ray-*/")]
    for host, pids in slurm.processes().items():
        for pid in pids:
            try:
                words = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
            if re.search(r"ray|certify|submitit", words):
                found.append(f"{host}: {words[:150]}")
    return found


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
    assert [life.cause for life in History(folder / "run").lives()] == [Cause.REQUEUED, Cause.DONE]
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
