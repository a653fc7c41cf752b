"""A paper that is submitted while jobs of it are queued; the queue is a folder, and Slurm's commands are scripts."""

import os
from functools import partial

import command
import pytest
from tiny import write_paper

from cluster.record.history import History

STAGES = ["check-train", "check-held-out", "pretrain", "sigma_0.25", "sigma_0.5", "certificates", "report"]
SITE = """
backend: slurm
ranks_per_node: 1
gpus_per_node: 0
cpus_per_rank: 1
time_limit: 10
seconds_before_limit: 30
device: cpu
certification: {workers: 1}
"""
COMMANDS = {
    "sbatch": 'n=$(($(ls $QUEUE | wc -l) + 1)); echo PENDING > $QUEUE/$n; echo "Submitted batch job $n"',
    "squeue": """
        for word; do case $word in --jobs=*) job=${word#--jobs=};; esac; done
        [ -f $QUEUE/$job ] || { echo 'Invalid job id specified' >&2; exit 1; }
        state=$(cat $QUEUE/$job); echo "$state|None"
        [ $state != COMPLETING ] || echo CANCELLED > $QUEUE/$job""",
    "scancel": "[ $(cat $QUEUE/$1) = RUNNING ] && echo COMPLETING > $QUEUE/$1 || echo CANCELLED > $QUEUE/$1",
    "scontrol": "exit 1",
}


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A folder with a file for each job, which holds its state."""
    folder, programs = tmp_path / "queue", tmp_path / "bin"
    for made in (folder, programs):
        made.mkdir()
    for name, script in COMMANDS.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("QUEUE", str(folder))
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    return folder


@pytest.fixture
def submit(queue, monkeypatch, capsys, tmp_path, digits):
    """Submit the paper, with values at the second σ: (exit code, {stage: what is said of it}, error)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site.yaml").write_text(SITE)

    def call(**finetune):
        recipe = write_paper(tmp_path, digits, **finetune)
        code, out, err = command.cluster(monkeypatch, capsys, "submit", "paper", recipe, "--site", "site.yaml")
        return code, dict(line.split(": ", 1) for line in out.splitlines() if ": " in line), err

    return call


@pytest.fixture
def cluster(monkeypatch, capsys):
    return partial(command.cluster, monkeypatch, capsys)


def jobs(folder):
    return {stage: History(folder / "paper" / stage).jobs()[-1]["job"] for stage in STAGES}


def anew(before, after):
    return [stage for stage in STAGES if before[stage] != after[stage]]


def test_what_is_queued_of_the_same_recipe_stays(submit, tmp_path):
    assert submit()[0] == 0
    before = jobs(tmp_path)
    code, said, _ = submit()
    assert code == 0
    assert said["pretrain"] == f"job {before['pretrain']}, PENDING, stays as it is"
    assert anew(before, jobs(tmp_path)) == []


def test_a_changed_recipe_replaces_the_jobs_of_the_old_one_and_those_after_it(submit, queue, tmp_path):
    submit()
    before = jobs(tmp_path)
    (queue / before["sigma_0.5"]).write_text("RUNNING\n")
    code, _, err = submit(seed=5)
    assert code == 0, err
    assert anew(before, jobs(tmp_path)) == ["sigma_0.5", "certificates", "report"]
    assert (queue / before["sigma_0.5"]).read_text() == "CANCELLED\n"


def test_stages_that_wait_for_a_job_that_another_has_replaced_are_queued_anew(submit, queue, cluster, tmp_path):
    submit()
    before = jobs(tmp_path)
    (queue / before["pretrain"]).write_text("FAILED\n")
    assert cluster("resubmit", tmp_path / "paper" / "pretrain")[0] == 0
    assert "sigma_0.25 and sigma_0.5 and certificates and report will never start" in cluster("status", "paper")[1]
    between = jobs(tmp_path)
    assert cluster("resubmit", "paper")[0] == 0
    assert anew(between, jobs(tmp_path)) == STAGES[3:]
    assert "will never start" not in cluster("status", "paper")[1]


def test_a_paper_that_is_refused_leaves_the_recipe_of_the_one_before(submit, tmp_path):
    submit()
    (tmp_path / "paper" / "sigma_0.5" / "recipe.yaml").write_text("kind: finetune\nsigma: 7\n")
    kept = (tmp_path / "paper" / "recipe.yaml").read_text()
    code, _, err = submit(seed=5)
    assert code == 2
    assert "holds a run of another recipe" in err
    assert (tmp_path / "paper" / "recipe.yaml").read_text() == kept


def test_a_paper_is_not_put_into_the_folder_of_another_kind_of_run_nor_a_run_into_a_papers(
    submit, queue, monkeypatch, capsys, tmp_path, digits
):
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "recipe.yaml").write_text("kind: pretrain\n")
    code, _, err = submit()
    assert code == 2
    assert "is the folder of a submission of kind pretrain, not paper" in err
    (tmp_path / "paper" / "recipe.yaml").unlink()
    assert submit()[0] == 0
    before = len(list(queue.iterdir()))
    arguments = ("submit", "certify", "certify.yaml", "--site", "site.yaml", f"output={tmp_path / 'paper'}")
    there = f"classifiers=[{{sigma: 0.5, checkpoint: {tmp_path}}}]"
    code, _, err = command.cluster(monkeypatch, capsys, *arguments, there)
    assert code == 2
    assert "is the folder of a submission of kind paper, not certify" in err
    assert len(list(queue.iterdir())) == before


def test_paths_that_are_not_there_are_told_but_for_those_that_a_stage_before_makes(
    submit, queue, monkeypatch, capsys, tmp_path, digits
):
    assert submit()[0] == 0
    before = len(list(queue.iterdir()))
    words = ("submit", "finetune", "finetune.yaml", "--site", "site.yaml", f"output={tmp_path / 'run'}")
    code, _, err = command.cluster(monkeypatch, capsys, *words, "start_from=/nope", "data.held_out=/nor/this")
    assert code == 2
    assert "data.held_out /nor/this and start_from /nope cannot be found from" in err
    assert len(list(queue.iterdir())) == before
