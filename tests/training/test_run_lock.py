"""Two trainings never write into one run folder at a time."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny import pretrain_recipe

from rrcm_dist.distributed.world import join_world
from rrcm_dist.errors import InvalidInput
from rrcm_dist.training import run_lock
from rrcm_dist.training.loop import train
from rrcm_dist.training.pretraining import prepare_pretraining
from rrcm_dist.training.run_lock import RunLock

HOLD = """
import sys, time
from pathlib import Path
from rrcm_dist.training.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]))
lock.take()
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Another process holds the lock of `folder`, and is killed at the end."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield
    finally:
        holder.kill()
        holder.wait()


def test_a_run_in_whose_folder_another_process_trains_is_refused_and_writes_nothing(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "PATIENCE_SECONDS", 0.1)
    with (
        held(tmp_path / "run"),
        join_world("cpu") as world,
        pytest.raises(InvalidInput, match=r"another process is training in .*run"),
    ):
        train(prepare_pretraining(pretrain_recipe(digits, tmp_path / "run"), world), world)
    assert [file.name for file in (tmp_path / "run").iterdir()] == [run_lock.NAME]


def test_a_second_training_is_refused_and_the_folder_is_free_once_the_first_is_killed(tmp_path):
    with held(tmp_path / "run"), pytest.raises(InvalidInput, match=r"another process is training in .*run"):
        RunLock(tmp_path / "run").take(patience=0.1)
    lock = RunLock(tmp_path / "run")
    lock.take(patience=5)
    lock.release()


def test_an_output_that_is_a_file_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(InvalidInput, match="run"):
        RunLock(tmp_path / "run").take()
