"""Certifications submitted to the test cluster: set up, slowed down, looked at."""

import json
import re
import sqlite3
from contextlib import suppress
from pathlib import Path

from slurm_hosts import wait_for

from cluster.ray_nodes.facts import FACTS
from cluster.record.history import History
from rrcm_dist.certification.on_ray.folder import FOLDER_PREFIX, HOST_FILE

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
gpus_per_node: 8
cpus_per_rank: 2
time_limit: 10
seconds_before_limit: 30
certification:
  workers: {workers}
  worker_partition: low-now
  worker_memory: {memory}
  gpus_per_worker: {gpus}
  head_cpus: 1
  head_memory: 1000M
  head_partition: main
"""


def prepare(folder, shards, workers=2, slow="0", memory="4500M", gpus=0):
    folder.mkdir(exist_ok=True)
    (folder / "tiny_classifier.py").write_text(CLASSIFIER)
    (folder / "recipe.yaml").write_text(RECIPE.format(output=folder / "run", shards=shards))
    (folder / "site.yaml").write_text(SITE.format(workers=workers, memory=memory, gpus=gpus))
    tell(folder, slow)
    return folder


def tell(folder, slow):
    """How long a pass is to take from now on, in seconds."""
    (folder / "aside").write_text(slow)
    (folder / "aside").replace(folder / "slow")


def submit(slurm, folder):
    """Numbers of the head job and of the array of workers."""
    slurm.launch(folder, "submit", "certify", "recipe.yaml", "--site", "site.yaml")
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
    with sqlite3.connect(f"file:{folder}/run/ledger.sqlite?mode=ro", uri=True) as connection:
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
    """What of Ray or of a sweep still runs on the nodes, and its folders, which say whose they are."""
    folders = [file.parent for file in Path("/tmp").glob(f"{FOLDER_PREFIX}*/{HOST_FILE}")]
    found = [str(folder) for folder in folders if (folder / HOST_FILE).read_text() in slurm.node_names]
    return found + [words for words in commands(slurm).values() if re.search(r"ray|certify|submitit", words)]


def sweeps(slurm):
    """Process ids, as this machine counts them, of the drivers on the nodes."""
    return [pid for pid, words in commands(slurm).items() if "rrcm_dist.cli.main certify" in words]


def commands(slurm):
    """What runs on the nodes, by process id."""
    found = {}
    for pids in slurm.processes().values():
        for pid in pids:
            with suppress(OSError):  # it has just ended
                found[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return found
