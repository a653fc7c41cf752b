"""Samples out of a local folder: what is expected is only a hint."""

import shutil
from pathlib import Path

import pytest

from rrcm_dist.data.index import load_index
from rrcm_dist.data.reading import SampleReader
from rrcm_dist.errors import RunFailure


def test_what_is_expected_changes_nothing_that_is_read(photo_index) -> None:
    plain, told = SampleReader(photo_index), SampleReader(photo_index)
    told.expect(range(0, len(photo_index), 2))
    told.expect(range(len(photo_index)))
    for sample_id in reversed(range(len(photo_index))):
        assert told.read(sample_id) == plain.read(sample_id)


def test_a_shard_that_has_gone_is_told_by_the_reading_not_by_the_expecting(photo_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photo_folder, tmp_path / "copy"))
    index = load_index(folder)
    (folder / index.shards[0].name).unlink()
    reader = SampleReader(index)
    reader.expect(range(len(index)))
    with pytest.raises(RunFailure, match=f"{index.shards[0].name} cannot be read"):
        reader.read(0)
    assert reader.read(len(index) - 1)
