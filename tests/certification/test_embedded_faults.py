"""`rrcm certify --workers 2` and the parts of the Ray that it starts for itself, killed while another runs beside."""

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from rrcm_dist.certification.on_ray import folder as ray_folder
from rrcm_dist.certification.run import certify
from rrcm_dist.config.load import load_recipe

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

NETWORK = """
import os
import time
import torch
from torch import nn


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(10, 3 * 16 * 16, generator=generator))

    def forward(self, x):
        time.sleep(float(os.environ.get("SECONDS_PER_PASS", "0")))
        return x.flatten(1) @ self.weight.T


def net():
    return Linear()
"""
RECIPE = """
kind: certify
name: digits
output: run
classifiers: [{sigma: 0.25, function: "slow_digit_networks:net"}]
data: SHARDS
image_size: 16
images: {every: 15}
n0: 100
n: 2000
block: 100
"""


@pytest.fixture
def here(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a recipe and its network."""
    (tmp_path / "slow_digit_networks.py").write_text(NETWORK)
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("SHARDS", str(digits / "held-out")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files, with a short name: sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="rrcm-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(folder)
    monkeypatch.setattr(tempfile, "tempdir", None)


class Run:
    """`rrcm certify` in a process of its own, with a Ray of its own if it has workers."""

    def __init__(self, output: str, seconds_per_pass: float, workers: int = 2) -> None:
        command = [sys.executable, "-m", "rrcm_dist.cli.main", "certify", "recipe.yaml", f"output={output}"]
        command += ["--workers", str(workers), "--no-dashboard"]
        self.ledger = Path(output) / "ledger.sqlite"
        self.held_before = held(self.ledger)
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"SECONDS_PER_PASS": str(seconds_per_pass)}, start_new_session=True,
        )  # fmt: skip

    def wait_until_it_counts(self) -> None:
        wait_for(lambda: held(self.ledger) > self.held_before or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()

    def parts(self, name: str = "") -> list[psutil.Process]:
        """The processes of its Ray whose command line begins with `name` after the folder."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if name in (child.cmdline() or [""])[0].rpartition("/")[2]]

    def kill_part(self, name: str) -> None:
        (part,) = self.parts(name)
        part.kill()

    def end(self, seconds: float = 60) -> tuple[int, str, str]:
        """(exit code, standard output, standard error without the progress bar)."""
        out, err = self.process.communicate(timeout=seconds)
        lines = [line.rpartition("\r")[2] for line in err.splitlines()]
        return self.process.returncode, out, "\n".join(line for line in lines if not line.startswith("certify  "))

    def ends_saying(self, sentence: str, seconds: float) -> None:
        """It fails with the sentence, what was counted is safe, and no page of anything is printed."""
        code, out, err = self.end(seconds)
        *before, last = err.splitlines()
        assert (code, out) == (1, "")
        assert last.startswith(sentence)
        assert last.endswith("the same command goes on from there")
        assert len(before) <= 6, err  # which images, which Ray, how many workers, two that are gone


def held(ledger: Path) -> int:
    """Blocks in a ledger."""
    if not ledger.exists():
        return 0
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as connection:
        return connection.execute("SELECT count(*) FROM blocks").fetchone()[0]


def stored(output: str) -> list[tuple]:
    with sqlite3.connect(Path(output) / "ledger.sqlite") as connection:
        return connection.execute(
            "SELECT sigma, image, stage, number, draws, counts FROM blocks ORDER BY sigma, image, stage, number"
        ).fetchall()


def wait_for(what: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


@pytest.mark.exhaustive
def test_whichever_part_is_killed_the_same_command_goes_on_to_the_same_counts(here, temporary, monkeypatch):
    certify(load_recipe("recipe.yaml", ["output=whole"], kind="certify"), torch.device("cpu"), show=False)

    one, other = Run("one", 0.05), Run("other", 0.05)  # each with a Ray of its own
    one.wait_until_it_counts()
    other.wait_until_it_counts()
    parts = one.parts("raylet") + one.parts("gcs_server") + one.parts("ray::WorkerActor")
    assert len(parts) >= 3
    one.process.send_signal(signal.SIGKILL)
    other.kill_part("gcs_server")
    one.process.wait()
    assert not psutil.wait_procs(parts, timeout=20)[1]
    sweep(temporary, monkeypatch)

    one = Run("one", 0.05)
    other.ends_saying("error: Ray's GCS on this machine died", seconds=30)
    one.wait_until_it_counts()
    other = Run("other", 0.0)
    one.kill_part("raylet")
    one.ends_saying("error: Ray's raylet on this machine died", seconds=15)
    assert 0 < held(Path("one/ledger.sqlite")) < held(Path("whole/ledger.sqlite"))

    for last in (Run("one", 0.0, workers=0), other):
        code, out, err = last.end()
        assert code == 0, err
        assert str(last.ledger) in out
    assert stored("one") == stored("other") == stored("whole")
    assert not list(temporary.glob("rrcm-ray-*"))


def sweep(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As every start does: one of two folders is gone, that of a killed run, and one that is in use stays."""
    assert len(list(folder.glob("rrcm-ray-*/"))) == 2
    with monkeypatch.context() as patch:
        patch.setattr(ray_folder, "NOT_YET_LOCKED_SECONDS", 0)
        ray_folder._sweep(folder)
    assert len(list(folder.glob("rrcm-ray-*/"))) == 1
