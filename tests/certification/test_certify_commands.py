"""`rrcm certify` and `rrcm radius` as a user meets them, on real shards of handwritten digits."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command import rrcm

from rrcm_dist.certification.images import images_of_shards
from rrcm_dist.certification.ledger.reader import LedgerReader
from rrcm_dist.config.schema import SelectionConfig
from rrcm_dist.data.index import content_identity, load_index

NETWORK = """
import time
from pathlib import Path
import numpy as np
import torch
from torch import nn


class Linear(nn.Module):
    def __init__(self, classes=10, seconds=0.0):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(classes, 3 * 32 * 32, generator=generator))
        self.seconds = seconds

    def forward(self, x):
        time.sleep(self.seconds)
        return x.flatten(1) @ self.weight.T


def net():
    return Linear()


def slow():
    return Linear(seconds=0.2)


def nine_classes():
    return Linear(classes=9)


class FailsOnOne(Linear):
    def forward(self, x):
        if Path("marked.npy").exists():
            marked = torch.from_numpy(np.load("marked.npy")) / 255
            if len(x) > 1 and (x.mean(0) - marked).abs().mean() < 0.08:
                raise ValueError("the marked image")
        return super().forward(x)


def fails_on_one():
    return FailsOnOne()
"""
RECIPE = """
kind: certify
name: digits
output: run
classifiers:
  - {sigma: 0.25, function: "digit_networks:net"}
  - {sigma: 0.5, function: "digit_networks:net"}
data: shards
image_size: 32
images: {every: 20}
n0: 20
n: 200
block: 100
"""


def build_digits(folder, *options):
    command = [
        sys.executable,
        "-m",
        "shards",
        "build",
        "digits",
        str(folder),
        "--held-out",
        "60",
        "--split",
        "held-out",
    ]
    subprocess.run([*command, *options], check=True, capture_output=True)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    build_digits(folder / "shards")
    return folder / "shards"


@pytest.fixture
def here(tmp_path, shards, monkeypatch):
    """A folder with a recipe, a module of networks and shards; the current one."""
    (tmp_path / "digit_networks.py").write_text(NETWORK)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "shards").symlink_to(shards)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "digit_networks", raising=False)
    return tmp_path


def test_certify_draws_writes_logs_and_shows_a_table(here, monkeypatch, capsys):
    code, out, err = rrcm(monkeypatch, capsys, "certify", "recipe.yaml", "--radii", "0,0.25,0.5")
    assert code == 0, err
    assert "images: one in 20 from 0: 3 of 60\n" in err
    assert "images 6/6" in err
    assert "digits" in out
    assert "ACR" in out
    assert "run/sigma_0.25.tsv" in out
    assert "run/ledger.sqlite" in out
    assert [line.split("\t")[0] for line in (here / "run/sigma_0.5.tsv").read_text().splitlines()] == [
        "idx",
        "0",
        "20",
        "40",
    ]
    with LedgerReader(here / "run/ledger.sqlite") as reader:
        assert len(reader.certificates(0.25)) == 3
    again, _, err = rrcm(monkeypatch, capsys, "certify", "recipe.yaml", "device_batch=7", "images.every=15")
    assert again == 0
    assert "certify  1760/1760 draws" in err


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["data=nowhere"], 2, "nowhere does not exist"),
    (["data=empty"], 2, "empty holds no index"),
    (["classifiers.0.sigma=0"], 2, "classifiers.0.sigma: must be greater than 0"),
    (["alpha=1"], 2, "alpha: must be less than 1"),
    (["--radii", "0,9"], 2, "radius 9.0 is out of reach"),
    (["--radii", ","], 2, "no radius"),
    (["--radii", "x"], 2, "not a list of numbers"),
    (["--device", "gpu"], 2, "auto, cpu or cuda"),
    (["output=recipe.yaml"], 2, "recipe.yaml is a file"),
    (["images.positions=[60]", "images.every=1"], 2, "there are 60 images"),
    (["classifiers=[{sigma: 0.5, function: 'digit_networks:absent'}]"], 2, "it has net, slow, nine_classes"),
    (["classifiers=[{sigma: 0.5, function: 'digit_networks:nine_classes'}]"], 2, "tells 9 classes apart"),
    (["classifiers=[{sigma: 0.5, function: 'digit_networks:net'}]", "image_size=16"], 1, "every image tried"),
    (["classifiers=[{sigma: 0.5, checkpoint: nowhere}]"], 2, "nowhere"),
])  # fmt: skip
def test_mistakes_end_with_one_message_and_an_exit_code(here, monkeypatch, capsys, arguments, code, message):
    (here / "empty").mkdir()
    found, out, err = rrcm(monkeypatch, capsys, "certify", "recipe.yaml", "n0=100", *arguments)
    assert (found, out) == (code, ""), err
    assert message in err
    assert "Traceback" not in err


def test_a_dry_run_draws_nothing(here, monkeypatch, capsys):
    code, out, _ = rrcm(monkeypatch, capsys, "certify", "recipe.yaml", "--dry-run")
    assert code == 0
    assert "n: 200" in out
    assert not (here / "run").exists()


def test_an_image_that_fails_is_told_with_its_reason_and_the_same_command_tries_it_again(here, monkeypatch, capsys):
    index = load_index(here / "shards")
    ((_, marked),) = images_of_shards(index, 32, SelectionConfig(every=20)).read([20])
    np.save(here / "marked.npy", marked.numpy())
    command = ["certify", "recipe.yaml", "classifiers=[{sigma: 0.25, function: 'digit_networks:fails_on_one'}]"]
    code, out, err = rrcm(monkeypatch, capsys, *command)
    assert code == 1
    assert "run/sigma_0.25.tsv" in out  # the other images are certified
    assert "1 images were given up and count as not certified; the same command tries them again:" in err
    assert f"image 20 ({index.keys[20]}) at sigma 0.25: 3 tries failed; the last:" in err
    assert "ValueError: the marked image" in err
    assert [line.split("\t")[0] for line in (here / "run/sigma_0.25.tsv").read_text().splitlines()] == [
        "idx",
        "0",
        "20",
        "40",
    ]
    (here / "marked.npy").unlink()
    code, _, err = rrcm(monkeypatch, capsys, *command)
    assert code == 0, err
    assert len((here / "run/sigma_0.25.tsv").read_text().splitlines()) == 4


def test_ctrl_c_ends_with_a_message_and_keeps_what_was_counted(here):
    command = [sys.executable, "-m", "rrcm_dist.cli.main", "certify", "recipe.yaml"]
    slow = "classifiers=[{sigma: 0.5, function: 'digit_networks:slow'}]"
    child = subprocess.Popen([*command, slow, "n=3000"], stderr=subprocess.PIPE, text=True, env={**os.environ})
    ledger = here / "run/ledger.sqlite"
    while not ledger.exists() or not held(ledger):
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    before = held(ledger)
    assert 0 < before < 93


def held(ledger):
    with LedgerReader(ledger) as reader:
        return reader._connection.execute("SELECT count(*) FROM blocks").fetchone()[0]


def test_images_of_shards_do_not_depend_on_how_they_are_packed(shards, tmp_path):
    build_digits(tmp_path / "packed", "--samples-per-shard", "7")
    one, other = load_index(shards), load_index(tmp_path / "packed")
    assert len(one.shards) < len(other.shards)
    assert content_identity(one) == content_identity(other)
    chosen = SelectionConfig(every=25)
    first, second = images_of_shards(one, 32, chosen), images_of_shards(other, 32, chosen)
    assert first.images == second.images
    for (image, pixels), (twin, same) in zip(first.read([50, 0]), second.read([50, 0]), strict=True):
        assert image == twin
        assert pixels.shape == (3, 32, 32)
        assert (pixels == same).all()


def test_radius_prints_one_certificate_never_rounded_up(monkeypatch, capsys):
    asked = ["radius", "--successes", "990", "--trials", "1000", "--alpha", "0.001", "--sigma", "0.5"]
    code, out, _ = rrcm(monkeypatch, capsys, *asked)
    assert code == 0
    assert "p_lower  0.976036" in out
    assert "radius   0.989004" in out
    code, out, _ = rrcm(monkeypatch, capsys, *asked, "--json")
    values = json.loads(out)
    assert (values["successes"], values["certified"]) == (990, True)
    assert values["radius"] == pytest.approx(0.98900479107, rel=1e-9)


def test_radius_says_when_the_classifier_abstains(monkeypatch, capsys):
    code, out, _ = rrcm(monkeypatch, capsys, "radius", "--successes", "500", "--trials", "1000", "--sigma", "0.5")
    assert code == 0
    assert "abstains" in out


@pytest.mark.parametrize("bad", [
    ["--successes", "11", "--trials", "10", "--sigma", "1"], ["--successes", "1", "--trials", "10", "--sigma", "0"],
    ["--successes", "1", "--trials", "10", "--sigma", "1", "--alpha", "1"],
])  # fmt: skip
def test_radius_of_what_cannot_be_is_refused(monkeypatch, capsys, bad):
    code, out, err = rrcm(monkeypatch, capsys, "radius", *bad)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
