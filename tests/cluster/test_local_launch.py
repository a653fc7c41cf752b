"""`python -m cluster submit --backend local`: real ranks over gloo on real shards."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import pretrain_recipe
from tiny_ibp import ibp_recipe

from cluster.backends import open_backend
from cluster.site import SITES, LocalSite, load_site
from cluster.this_machine import LocalPlace
from rrcm_dist.config.load import dump_recipe
from rrcm_dist.config.yaml_text import read_yaml
from rrcm_dist.errors import InvalidInput

SECONDS = 120
OPTIONS = ("--ranks", "2", "--threads", "1", "--device", "cpu")


def submit(folder, shards, *arguments):
    """A running `submit pretrain` on two ranks, whose run folder is `folder`/run."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(dump_recipe(pretrain_recipe(shards, folder / "run")))
    command = [sys.executable, "-m", "cluster", "submit", "pretrain", str(recipe), *OPTIONS, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def from_another_shell(*command):
    """What `python -m cluster COMMAND` says."""
    return subprocess.run([sys.executable, "-m", "cluster", *map(str, command)], capture_output=True, text=True)


def steps_logged(folder):
    file = folder / "run" / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def wait_for_step(folder, process):
    """Return when the run has made some more steps."""
    start, deadline = steps_logged(folder), time.monotonic() + SECONDS
    while steps_logged(folder) < start + 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run makes no steps"
        time.sleep(0.05)


def rank_processes(folder):
    """Rank → process number of those that work on `folder`/recipe.yaml."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
            environment = (entry / "environ").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "rrcm_dist.cli.main" in words and str(folder / "recipe.yaml") in words:
            found.update({int(e.removeprefix("RANK=")): int(entry.name) for e in environment if e.startswith("RANK=")})
    return found


@pytest.mark.distributed
@pytest.mark.slow
def test_two_ranks_train_one_run(tmp_path, digits):
    process = submit(tmp_path, digits)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    checkpoint = tmp_path / "run" / "checkpoints" / "step-000000008"
    assert out.splitlines()[-1] == str(checkpoint)
    assert "8/8 steps" in out
    assert json.loads((checkpoint / "manifest.json").read_text())["progress"]["ranks"] == 2
    assert json.loads((tmp_path / "run" / "environment.json").read_text())[0]["ranks"] == 2
    assert str(checkpoint) in (tmp_path / "run" / "logs" / "rank-0.log").read_text()
    assert "rank 1 of 2" in (tmp_path / "run" / "logs" / "rank-1.log").read_text()


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks in /proc")
def test_a_killed_rank_ends_the_run_and_ctrl_c_keeps_a_checkpoint(tmp_path, digits):
    process = submit(tmp_path, digits, "training.steps=5000")
    wait_for_step(tmp_path, process)
    os.kill(rank_processes(tmp_path)[1], signal.SIGKILL)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 137
    assert err.startswith("rank 1 of 2 was killed by SIGKILL"), err
    assert rank_processes(tmp_path) == {}

    process = submit(tmp_path, digits, "training.steps=5000")
    wait_for_step(tmp_path, process)
    assert ", RUNNING\nstep " in from_another_shell("status", tmp_path / "run").stdout
    second = submit(tmp_path, digits)
    assert "which is RUNNING: give another output" in second.communicate(timeout=SECONDS)[1]
    assert second.returncode == 2
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    assert ", ENDED\nstep " in from_another_shell("status", tmp_path / "run").stdout
    assert "rank-1: " in from_another_shell("logs", tmp_path / "run", "--rank", "1").stdout
    assert process.returncode == 130
    assert "resuming from" in out
    assert "the same command goes on from there" in out
    assert "rank" not in err
    newest = (tmp_path / "run" / "checkpoints" / "latest").read_text().strip()
    assert newest in out
    assert rank_processes(tmp_path) == {}


def test_a_run_is_cancelled_on_its_own_machine(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as launcher:
        LocalPlace(tmp_path, {"job": f"{socket.gethostname()}:{launcher.pid}"}).cancel()
        assert launcher.wait(timeout=SECONDS) == -signal.SIGTERM
    with pytest.raises(InvalidInput, match="the run is on elsewhere: cancel it there"):
        LocalPlace(tmp_path, {"job": "elsewhere:1"}).cancel()


@pytest.mark.distributed
@pytest.mark.slow
def test_what_all_ranks_complain_about_is_shown_once(tmp_path, digits):
    process = submit(tmp_path, digits, "data.train=nowhere")
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert err.count("nowhere does not exist") == 1


@pytest.mark.parametrize(("arguments", "told"), [
    (["--backend", "ray"], "backend ray needs the cluster's facts: --site FILE, after the example of "),
    (["--backend", "locl"], "backend 'locl' is not known"),
    (["data.streams=3"], "2 ranks cannot share data.streams 3 evenly: choose 1, 3 ranks"),
    (["--threads", "0"], "threads: must be greater than or equal to 1 (given 0)"),
    (["--site", "nowhere.yaml"], "there is no site file nowhere.yaml"),
    (["--resume", "maybe"], "choose auto or never"),
    (["trainig.steps=3"], "did you mean training.steps"),
])  # fmt: skip
def test_mistakes_are_told_before_anything_is_started(tmp_path, arguments, told):
    process = submit(tmp_path, tmp_path / "no-shards", *arguments)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert told in err
    assert not (tmp_path / "run").exists()


def test_the_projects_site_file_holds_every_key():
    file = SITES / "local.yaml"
    assert read_yaml(file.read_text(), "").keys() == LocalSite.model_fields.keys()
    assert load_site(LocalSite, file, {"ranks": 3}).ranks == 3


def test_problems_of_a_site_file_are_all_named(tmp_path):
    file = tmp_path / "site.yaml"
    file.write_text('{backend: local, thread: 3, ranks: "4"}')
    with pytest.raises(InvalidInput, match=r"(?s)ranks: must be a valid integer.*thread: unknown key; did you mean"):
        open_backend("local", str(file), {})


def test_certified_training_is_submitted_and_watched_as_other_trainings_are(tmp_path, digits):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(ibp_recipe(digits, tmp_path / "run")))
    done = from_another_shell("submit", "train-ibp", recipe, *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[-1]) == tmp_path / "run/checkpoints/step-000000008"
    assert "checkpoint step-000000008" in from_another_shell("status", tmp_path / "run").stdout
