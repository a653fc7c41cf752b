"""Two ranks here that meet by gloo, as srun would start them."""

import os
import socket
import subprocess
import sys

import pytest

from cluster.preflight.reports import Reports
from cluster.preflight.verdict import bandwidth, judge_ranks

pytestmark = [pytest.mark.slow, pytest.mark.distributed]


def start(rank, ranks, port, device="cpu"):
    place = {"SLURM_PROCID": rank, "SLURM_NTASKS": ranks, "SLURM_LOCALID": rank, "SLURMD_NODENAME": f"node{rank + 1}"}
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "cluster.preflight.rank", device, "0"],
        stdout=subprocess.PIPE, text=True, env={**environment, **{name: str(value) for name, value in place.items()}},
    )  # fmt: skip


def hear(processes):
    reports = Reports(lambda place: "unheard", len(processes))
    for process in processes:
        for line in process.communicate(timeout=60)[0].splitlines():
            reports.hear(line)
    return reports.all


def test_two_ranks_meet_and_measure_their_bandwidth():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reports = hear([start(rank, 2, port) for rank in (0, 1)])
    assert judge_ranks(reports, 60, None).passed
    assert bandwidth(reports) > 0
    assert "gloo, 16 MiB: algorithm " in reports[0].findings[-1].found
    assert judge_ranks(reports, 60, 1e6).undecided


def test_a_rank_without_its_device_says_so():
    (report,) = hear([start(0, 1, 1, device="cuda")])
    assert "torch sees no GPU here" in report.problems[0].problem
    assert list(judge_ranks([report], 60, None).nodes) == ["node1"]
