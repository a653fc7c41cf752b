"""A run folder is submitted by one process at a time."""

import threading

import pytest

from cluster.record import lock
from cluster.record.lock import submission_lock
from rrcm_dist.errors import InvalidInput


def test_the_second_goes_on_when_the_first_lets_go(tmp_path):
    order = []

    def second() -> None:
        with submission_lock(tmp_path):
            order.append("second")

    with submission_lock(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.5)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_run_folder_that_is_never_let_go_of_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0.2)
    with (
        submission_lock(tmp_path),
        pytest.raises(InvalidInput, match="is being submitted by another process"),
        submission_lock(tmp_path),
    ):
        pass


def test_a_file_in_the_place_of_the_run_folder_is_told(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(InvalidInput, match="cannot be written"), submission_lock(tmp_path / "run"):
        pass
