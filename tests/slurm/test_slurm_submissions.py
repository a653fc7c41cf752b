"""Submitting to a real Slurm: two at once, and without accounting."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from events import AT_STEP
from tiny_runs import TinyRun

from cluster.record.history import Cause

pytestmark = [pytest.mark.slow]


@pytest.fixture
def run(slurm, tmp_path, digits):
    return TinyRun(slurm, tmp_path, digits)


def test_of_two_submissions_at_the_same_moment_one_is_refused(slurm, run):
    run.write_site()
    command = [sys.executable, "-m", "cluster", "submit", "pretrain", "recipe.yaml", "--site", "site.yaml"]
    both = [
        subprocess.Popen(command, env=slurm.environment(), cwd=run.folder, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=60)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], told
    assert f"belongs to job {run.newest_job()}, which is " in "".join(told)
    assert slurm.run("squeue", "--noheader", "--format=%i").split() == [str(run.job)]
    assert len(run.submissions()) == 1


@pytest.mark.exhaustive
def test_without_sacct_a_run_is_watched_cancelled_and_resubmitted(slurm, run, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PATH", str(without_accounting(tmp_path_factory.mktemp("bin"))))
    run.submit()
    run.wait_for_step(AT_STEP)
    assert f"job {run.job}, RUNNING" in run.call("status", "run")
    run.call("cancel", "run")
    assert run.wait_for_end() == "CANCELLED"
    assert f"job {run.job}, CANCELLED" in run.call("status", "run")
    run.call("resubmit", "run")
    run.newest_job()
    assert run.wait_for_end() == "COMPLETED", run.tails()
    assert ": finished" in run.call("status", str(run.job))
    assert run.causes() == [Cause.CANCELLED, Cause.DONE]


def without_accounting(folder: Path) -> Path:
    """All programs of PATH but sacct and sacctmgr, in one folder."""
    for place in map(Path, os.environ["PATH"].split(":")):
        for program in place.iterdir() if place.is_dir() else ():
            if not program.name.startswith("sacct") and not (folder / program.name).is_symlink():
                (folder / program.name).symlink_to(program)
    return folder
