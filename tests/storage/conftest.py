"""Real servers: of files by http, and one that speaks S3."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.range_server import RangeServer, range_server
from rrcm_dist.storage import remote


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, RangeServer]]:
    """An empty folder and its server."""
    folder = tmp_path / "served"
    folder.mkdir()
    with range_server(folder) as server:
        yield folder, server


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store must answer within a second, and the log is told of every failure."""
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(remote, "SECONDS_BETWEEN_WARNINGS", 0.0)
