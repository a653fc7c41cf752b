"""Two trainings never write into one run folder at a time."""

import subprocess
import sys

import pytest

from rrcm_dist.errors import InvalidInput
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


def test_a_second_training_is_refused_and_the_folder_is_free_once_the_first_is_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InvalidInput, match=r"another process is training in .*run"):
            RunLock(tmp_path / "run").take(patience=0.1)
    finally:
        holder.kill()
        holder.wait()
    lock = RunLock(tmp_path / "run")
    lock.take(patience=5)
    lock.release()


def test_an_output_that_is_a_file_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(InvalidInput, match="run"):
        RunLock(tmp_path / "run").take()
