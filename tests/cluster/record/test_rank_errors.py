"""What ranks say of their end."""

import shutil
from types import SimpleNamespace

from cluster.record.rank_errors import why_ranks_ended


def test_the_last_error_that_a_rank_tells_is_why(tmp_path):
    (tmp_path / "rank-0.log").write_text("error: rank 0 lost another rank, which says for itself why it ended\n")
    (tmp_path / "rank-1.log").write_text("step 4\nerror: loss is not finite\n")
    assert why_ranks_ended(tmp_path) == "loss is not finite"


def test_a_killed_rank_tells_nothing(tmp_path):
    (tmp_path / "rank-0.log").write_text("step 4\n")
    assert why_ranks_ended(tmp_path) == ""


def test_a_full_disk_keeps_ranks_from_telling(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4096))
    assert why_ranks_ended(tmp_path) == f"the disk of {tmp_path} is full: make room"
