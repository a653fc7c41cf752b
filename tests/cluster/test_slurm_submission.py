"""What is submitted to Slurm, and what is refused before, on a machine without Slurm."""

import json
import os
import sys
from functools import partial
from pathlib import Path

import command
import pytest
from tiny import pretrain_recipe

from cluster.backends.slurm import SlurmBackend
from cluster.record.history import Cause, History
from cluster.record.progress import newest_checkpoint
from cluster.site import SITES, SlurmSite, load_site
from cluster.slurm.checks import _gpus, check_site, minutes
from rrcm_dist.config.load import dump_recipe
from rrcm_dist.config.yaml_text import read_yaml
from rrcm_dist.errors import InvalidInput

EXPECTED = Path(__file__).parent / "slurm-dry-run.txt"


@pytest.fixture
def cluster(monkeypatch, capsys, tmp_path):
    """`python -m cluster …` in an empty folder where there is no Slurm: (exit code, standard output, error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    Path("recipe.yaml").write_text(dump_recipe(pretrain_recipe(Path("/shards"), Path("/runs/tiny"))))

    return partial(command.cluster, monkeypatch, capsys)


def submit(cluster, *arguments, site="slurm-shared"):
    return cluster("submit", "pretrain", "recipe.yaml", "--site", SITES / f"{site}.yaml", *arguments)


def test_a_dry_run_prints_the_batch_script_and_what_it_starts(cluster):
    code, out, _ = submit(cluster, "--dry-run")
    assert code == 0
    assert out.replace(sys.executable, "PYTHON") == EXPECTED.read_text()


def test_a_dry_run_here_prints_the_command_of_a_rank(cluster):
    code, out, _ = cluster("submit", "pretrain", "recipe.yaml", "--ranks", 2, "--device", "cpu", "--dry-run")
    assert code == 0
    assert out.startswith("2 ranks on this machine, each: ")
    assert out.endswith(" -m rrcm_dist.cli.main pretrain recipe.yaml --resume auto --device cpu\n")


@pytest.mark.parametrize(("arguments", "told"), [
    ([], "there is no Slurm on this machine (sbatch, squeue, scontrol, scancel not on PATH)"),
    (["data.streams=3"], "4 ranks cannot share data.streams 3 evenly"),
    (["--backend", "local"], "slurm-shared.yaml is for backend slurm: leave out --backend local"),
    (["--ranks", "2"], "--ranks: not for backend slurm; "),
])  # fmt: skip
def test_mistakes_are_told_before_anything_is_queued(cluster, arguments, told):
    code, _, err = submit(cluster, *arguments)
    assert code == 2
    assert told in err


@pytest.mark.parametrize(("text", "told"), [
    ("backend: slrm", "is for backend 'slrm', which is not available"),
    ("- 3", "is not a site file"),
    ("backend: slurm", "ranks_per_node: missing, must be given"),
    (
        "{backend: slurm, ranks_per_node: 1, gpus_per_node: 0, cpus_per_rank: 1, time_limit: 5, "
        "seconds_before_limit: 240}",
        "time_limit 5 min leaves no time to work: a job may be asked to end 300 s before it",
    ),
])  # fmt: skip
def test_problems_of_a_site_file_are_told(cluster, text, told):
    Path("site.yaml").write_text(text)
    code, _, err = cluster("submit", "pretrain", "recipe.yaml", "--site", "site.yaml")
    assert code == 2
    assert told in err


def test_a_cluster_needs_a_site_file(cluster):
    code, _, err = cluster("submit", "pretrain", "recipe.yaml", "--backend", "slurm")
    assert code == 2
    assert "backend slurm needs the cluster's facts: --site FILE" in err


@pytest.mark.parametrize("name", ["slurm-a800", "slurm-shared"])
def test_the_projects_site_files_hold_every_key(name):
    file = SITES / f"{name}.yaml"
    assert read_yaml(file.read_text(), "").keys() == SlurmSite.model_fields.keys()
    assert load_site(SlurmSite, file, {"nodes": 3}).ranks == 3 * load_site(SlurmSite, file, {"nodes": 1}).ranks


def test_a_key_that_slurm_cannot_take_is_told():
    with pytest.raises(InvalidInput, match=r"nodes: must be greater than or equal to 1 \(given 0\)"):
        load_site(SlurmSite, SITES / "slurm-shared.yaml", {"nodes": 0})


def test_limits_and_gpus_are_read_as_slurm_writes_them():
    assert [minutes(text) for text in ("4:00:00", "1-12:00:00", "30:00", "infinite")] == [240, 2160, 30, None]
    assert [_gpus(text) for text in ("gpu:a800:8(S:0-1)", "gpu:4,shard:8", "gpu:2,gpu:v100:2", "(null)")] == [
        8,
        4,
        4,
        0,
    ]


def checkpoint(run, step, finished=False):
    folder = run / "checkpoints" / f"step-{step:09}"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"progress": {"step": step, "finished": finished}}))


def test_the_status_is_told_from_the_run_folder_alone_where_slurm_is_silent(cluster, tmp_path):
    run = tmp_path / "run"
    for name in ("status", "logs", "cancel", "resubmit"):
        code, _, err = cluster(name, run)
        assert code == 2
        assert "there is no run folder" in err
    run.mkdir()
    code, _, err = cluster("status", run)
    assert code == 2
    assert "was never submitted" in err

    history = History(run)
    history.add_job("7", "pretrain", run / "recipe.yaml", ["submit"], {"backend": "slurm"})
    history.end(history.begin("7", 0), Cause.PREEMPTED, 50, "Slurm says PENDING")
    history.begin("7", 50)
    checkpoint(run, 50)
    (run / "checkpoints" / "step-000000075").mkdir()  # torn: it has no manifest
    metrics = {"step": 60, "samples_seen": 6000, "images_per_second": 100.0}
    (run / "metrics.jsonl").write_text(json.dumps(metrics) + "\n" + json.dumps({"step": 60, "knn": 0.5}) + "\n{cut")
    (run / "logs/life-1").mkdir(parents=True)
    (run / "logs/life-1/rank-0.log").write_text("pretrain tiny  60/200 steps  3 s\n")
    (run / "logs/life-1/rank-1.log").write_text("one\ntwo\n")
    code, out, _ = cluster("status", run)
    assert code == 0
    assert "job 7, last known: running since" in out
    assert "step 60 of 200, 6,000 samples, 100 images/s, ETA 2 min 20 s" in out
    assert "checkpoint step-000000050" in out
    assert "1 restart\n" in out
    assert "from step 0 to 50: preempted (Slurm says PENDING)" in out

    assert cluster("logs", run, "--rank", 1, "--lines", 1)[1] == "life-1 rank-1: two\n"
    assert cluster("logs", run)[1].splitlines()[0] == "life-1 rank-0: pretrain tiny  60/200 steps  3 s"
    code, _, err = cluster("logs", run, "--rank", 2)
    assert code == 2
    assert "rank 2 has written nothing yet" in err

    checkpoint(run, 200, finished=True)
    (run / "recipe.yaml").write_text(dump_recipe(pretrain_recipe(Path("/shards"), run)))
    assert newest_checkpoint(run).finished
    code, _, err = cluster("resubmit", run)
    assert code == 2
    assert "is finished: nothing is left to do" in err


def test_a_run_is_resubmitted_from_anywhere_without_the_nodes_that_were_unfit(cluster, tmp_path, monkeypatch):
    run = tmp_path / "elsewhere" / "run"
    monkeypatch.chdir(tmp_path)
    history = History(run)
    site = load_site(SlurmSite, SITES / "slurm-shared.yaml", {}).model_dump(mode="json")
    history.add_job("7", "pretrain", tmp_path / "recipe.yaml", ["submit"], site)
    history.end(history.begin("7", 0), Cause.PREFLIGHT, 0, "unfit", ["node3"])
    queued = []
    monkeypatch.setattr(SlurmBackend, "submit", lambda backend, job: queued.append(backend.site.exclude) or 0)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cluster("resubmit", "run")[0] == 0
    assert queued == [["node3"]]


def test_what_cannot_be_resubmitted_or_shown_by_itself_says_what_can(cluster, tmp_path):
    check, paper, moved = tmp_path / "paper" / "check-train", tmp_path / "paper", tmp_path / "moved"
    History(check).add_job("7", "shards", check / "recipe.yaml", [], {"backend": "slurm"})
    code, _, err = cluster("resubmit", check)
    assert (code, f"is a stage of a paper: `python -m cluster resubmit {paper}`" in err) == (2, True)
    assert cluster("status", check)[1].splitlines()[1:] == ["0 restarts"]
    History(paper).add_job("", "paper", paper / "recipe.yaml", [], {"backend": "slurm"})
    code, _, err = cluster("logs", paper)
    assert (code, f"is a paper: name one of its stages, such as {paper}/pretrain" in err) == (2, True)
    (moved / "cluster").mkdir(parents=True)
    line = {"job": "7", "kind": "pretrain", "working_folder": str(tmp_path / "gone"), "site": {"backend": "slurm"}}
    (moved / "cluster" / "jobs.jsonl").write_text(json.dumps(line) + "\n")
    code, _, err = cluster("resubmit", moved)
    assert (code, "which cannot be entered here" in err) == (2, True)


def test_of_several_partitions_each_must_be_there(tmp_path, monkeypatch):
    (tmp_path / "sinfo").write_text("#!/bin/sh\necho 'long|4:00:00|(null)|2|64'; echo 'short|1:00:00|(null)|2|64'\n")
    (tmp_path / "sinfo").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    site = load_site(SlurmSite, SITES / "slurm-shared.yaml", {"gpus_per_node": 0, "partition": "short,long"})
    check_site(site)
    with pytest.raises(InvalidInput, match="there is no partition nights: choose long, short"):
        check_site(site.model_copy(update={"partition": "long,nights"}))
    with pytest.raises(InvalidInput, match="time_limit 240 min is more than partition short allows: 60"):
        check_site(site.model_copy(update={"partition": "short"}))
