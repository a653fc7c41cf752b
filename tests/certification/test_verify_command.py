"""`rrcm verify`, `rrcm merge` and `rrcm report` of verifications as a user calls them; kills and Ctrl-C."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command import rrcm
from tiny_ibp import ibp_recipe

from rrcm_dist.certification.verification import worker as workers
from rrcm_dist.config.load import dump_recipe
from rrcm_dist.interval.loading import load_ibp_classifier

HERE = Path(__file__).parent
RECIPE = """
kind: verify
name: digits
output: run
function: "verifiable_networks:small"
data: shards
image_size: 8
images: {every: 60}
epsilons: [0.001, 0.01]
attack: {steps: 4, restarts: 2}
"""


@pytest.fixture
def here(tmp_path, digits, monkeypatch):
    """The current folder, with a recipe, its networks and shards of 360 digits, six of which are verified."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "shards").symlink_to(digits / "held-out")
    shutil.copy(HERE / "verifiable_networks.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(output):
    with sqlite3.connect(f"file:{output}/ledger.sqlite?mode=ro", uri=True) as connection:
        return connection.execute("SELECT epsilon, image, margin, attack FROM verifications ORDER BY 1, 2").fetchall()


def test_verify_shows_errors_and_reports(here, monkeypatch, capsys):
    code, out, err = rrcm(monkeypatch, capsys, "verify", "recipe.yaml")
    assert code == 0, err
    assert "images: one in 60 from 0: 6 of 360\n" in err
    assert "images 12/12" in err
    assert "verified error %" in out
    assert "ledger: run/ledger.sqlite" in out
    code, out, err = rrcm(monkeypatch, capsys, "report", "run", "--output", "page", "--dataset", "mnist")
    assert code == 0, err
    assert "verified error %" in out
    assert "Verified error" in (here / "page/report.html").read_text()


@pytest.mark.parametrize(("arguments", "message"), [
    (["epsilons=[1.5]"], "epsilons.0: must be less than or equal to 1 (given 1.5)"),
    (["epsilons=[-0.1]"], "epsilons.0: must be greater than or equal to 0"),
    (["epsilons=[]"], "epsilons"),
    (["epsilons=[0.1,0.1]"], "epsilons must differ"),
    (["function=null"], "give either checkpoint or function"),
    (["function=verifiable_networks:unknown"], "GELU"),
    (["function=verifiable_networks:nine_classes"], "tells 9 classes apart, and the dataset has 10"),
    (["function=null", "checkpoint=nowhere"], "nowhere"),
    (["precision=bf16"], "precision"),
    (["data=nowhere"], "nowhere does not exist"),
    (["images.positions=[360]", "images.every=1"], "there are 360 images"),
])  # fmt: skip
def test_mistakes_end_with_one_message_before_anything_is_written(here, monkeypatch, capsys, arguments, message):
    code, out, err = rrcm(monkeypatch, capsys, "verify", "recipe.yaml", *arguments)
    assert (code, out) == (2, ""), err
    assert message in err
    assert "Traceback" not in err
    assert not (here / "run" / "ledger.sqlite").exists()


def test_a_layer_without_bounds_is_named_with_its_place(here, monkeypatch, capsys):
    _, _, err = rrcm(monkeypatch, capsys, "verify", "recipe.yaml", "function=verifiable_networks:unknown")
    assert "verifiable_networks:unknown: no bounds are known for GELU, layer 1: " in err


def test_a_dry_run_tells_images_and_passes_and_verifies_nothing(here, monkeypatch, capsys):
    code, out, err = rrcm(monkeypatch, capsys, "verify", "recipe.yaml", "--dry-run")
    assert code == 0, err
    assert "passes per image" in out
    assert f"{6 * 2 * (2 + 2 * 5)}" in out
    assert not (here / "run").exists()


def test_a_contradiction_ends_the_run_loudly_and_names_the_images(here, monkeypatch, capsys):
    monkeypatch.setattr(workers, "verified_margins", lambda network, images, *rest: torch.ones(len(images)))
    code, _, err = rrcm(monkeypatch, capsys, "verify", "recipe.yaml", "epsilons=[0.001]")
    assert code == 1
    assert "CONTRADICTION: " in err
    assert "at epsilon 0.001: bound 1, but its own class is" in err
    assert "Traceback" not in err
    code, out, _ = rrcm(monkeypatch, capsys, "report", "run", "--output", "page")
    assert "CONTRADICTION in digits" in out
    assert "CONTRADICTION in digits" in (here / "page/report.html").read_text()


def test_ledgers_are_merged_by_their_kind(here, monkeypatch, capsys):
    for output, images in (("a", "{every: 120}"), ("b", "{start: 60, every: 120}")):
        code, _, err = rrcm(monkeypatch, capsys, "verify", "recipe.yaml", f"output={output}", f"images={images}")
        assert code == 0, err
    code, out, err = rrcm(monkeypatch, capsys, "merge", "both", "a", "b")
    assert code == 0, err
    assert "12 verifications, at 2 ε" in out
    rrcm(monkeypatch, capsys, "verify", "recipe.yaml")
    assert rows("both") == rows("run")


@pytest.mark.slow
def test_ctrl_c_and_a_kill_leave_a_ledger_that_the_same_command_completes(here, monkeypatch, capsys):
    rrcm(monkeypatch, capsys, "verify", "recipe.yaml", "output=whole")
    command = [sys.executable, "-m", "rrcm_dist.cli.main", "verify", "recipe.yaml"]
    slowly = [*command, "function=verifiable_networks:slow"]
    root = str(HERE.parents[1])
    environment = os.environ | {"SECONDS_PER_PASS": "0.05", "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    found = 0
    for ending, expected in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        child = subprocess.Popen(slowly, stderr=subprocess.PIPE, text=True, env=environment)
        while not (here / "run/ledger.sqlite").exists() or len(rows("run")) <= found:
            assert child.poll() is None, child.stderr.read()
            time.sleep(0.02)
        child.send_signal(ending)
        _, err = child.communicate(timeout=30)
        assert child.returncode == expected
        assert "Traceback" not in err
        held = rows("run")
        assert found < len(held) < 12
        found = len(held)
    code, _, err = rrcm(monkeypatch, capsys, "verify", "recipe.yaml")
    assert code == 0, err
    assert rows("run") == rows("whole")


@pytest.mark.slow
def test_a_trained_network_is_verified_from_its_run_folder(here, digits, monkeypatch, capsys):
    (here / "train.yaml").write_text(dump_recipe(ibp_recipe(digits, here / "trained", steps=2, checkpoint_every=2)))
    code, _, err = rrcm(monkeypatch, capsys, "train-ibp", "train.yaml", "--device", "cpu")
    assert code == 0, err
    command = ["verify", "recipe.yaml", "function=null", "checkpoint=trained"]
    code, _, err = rrcm(monkeypatch, capsys, *command)
    assert code == 0, err
    assert load_ibp_classifier("trained", "cpu").recipe.network.channels == 1  # though shards hold three
    assert len(rows("run")) == 12
    code, _, err = rrcm(monkeypatch, capsys, *command, "output=large", "image_size=16")
    assert code == 2
    assert "was trained at image_size 8, not 16: verify with image_size=8" in err
    code, _, err = rrcm(monkeypatch, capsys, *command, "seed=1")
    assert code == 2
    assert "belongs to another run: seed 0 there, 1 here" in err
