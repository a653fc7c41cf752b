"""What follows from the queue's answers, and from its silence, is told apart; squeue is a script that answers."""

import os
import time

import pytest

from cluster.record.history import History
from cluster.site import SITES, SlurmSite, load_site
from cluster.slurm import certify_worker
from cluster.slurm.certify_head import CertifyHead
from cluster.slurm.certify_worker import CertifyWorker
from cluster.slurm.tools import is_queued, queue_state
from rrcm_dist.errors import RunFailure

SILENT = "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
FORGOTTEN = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Set what squeue does, in shell."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)

    def answer(script):
        file = tmp_path / "bin" / "squeue"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    return answer


def worker():
    made = CertifyWorker("/nowhere", "7", 1, 0, {})
    made._asked_slurm = time.monotonic() - 2 * certify_worker.ASK_SECONDS
    return made


def head(run):
    History(run).add_job("7", "certify", run / "recipe.yaml", [], {}, workers="8")
    made = CertifyHead(str(run), str(run), [], load_site(SlurmSite, SITES / "slurm-shared.yaml", {}), 0, 0, "cpu")
    made._step = type("Step", (), {"job": "7"})()
    return made


def test_a_worker_waits_on_for_its_head_where_the_controller_is_silent(squeue):
    squeue(SILENT)
    worker()._check_head_job()


@pytest.mark.parametrize("answer", [FORGOTTEN, "echo 'FAILED|NonZeroExitCode'"])
def test_a_worker_whose_heads_job_is_gone_ends(squeue, answer):
    squeue(answer)
    with pytest.raises(RunFailure, match="job 7, the head of this worker, is gone"):
        worker()._check_head_job()


@pytest.mark.parametrize(("answer", "left"), [
    (SILENT, True),
    ("echo 'FAILED|None'; echo 'PENDING|BeginTime'", True),
    ("echo 'FAILED|None'; echo 'COMPLETED|None'", False),
    (FORGOTTEN, False),
])  # fmt: skip
def test_a_head_waits_for_workers_that_may_still_come_and_for_no_others(squeue, tmp_path, answer, left):
    squeue(answer)
    assert head(tmp_path)._workers_left() is left


def test_of_a_silent_controller_nothing_is_known(squeue):
    squeue(SILENT)
    for asked in (is_queued, queue_state):
        with pytest.raises(RunFailure, match=r"squeue does not answer: .*Unable to contact"):
            asked("7")
    squeue(FORGOTTEN)
    assert queue_state("7") is None
    squeue("echo 'PENDING|Priority'")
    assert queue_state("7") == ("PENDING", "Priority")
