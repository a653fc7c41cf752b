import json
import zlib

import numpy as np
import pytest

from rrcm_dist.data.index import Shard, load_index, write_index
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.files import sha256


@pytest.fixture
def folder(tmp_path):
    """Two shards of two samples each: plain bytes, which is all the index knows of them."""
    shards = []
    columns = {name: [] for name in ("offset", "length", "label", "crc32", "key")}
    for number in range(2):
        path = tmp_path / f"shard-{number:06d}.tar"
        path.write_bytes(bytes([number]) * 100)
        shards.append(Shard(path.name, 100, sha256(path), 2))
        for part in range(2):
            values = (part * 50, 40, part, zlib.crc32(bytes([number]) * 40), f"sample-{number}{part}")
            for name, value in zip(columns, values, strict=True):
                columns[name].append(value)
    arrays = {name: np.array(values) for name, values in columns.items()}
    write_index(tmp_path, ["cat", "größe"], shards, arrays, {"built": {"source": "test"}})
    return tmp_path


def change_header(folder, **fields):
    path = folder / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def change_samples(folder, **columns):
    path = folder / "samples.npz"
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **(arrays | columns))
    change_header(folder, samples_sha256=sha256(path))


def test_an_index_is_read_as_it_was_written(folder):
    index = load_index(folder)
    assert len(index) == 4
    assert index.classes == ("cat", "größe")
    assert index.shard_of.tolist() == [0, 0, 1, 1]
    assert index.offset.tolist() == [0, 50, 0, 50]
    assert index.keys.tolist() == ["sample-00", "sample-01", "sample-10", "sample-11"]
    assert [getattr(index, name).dtype for name in ("shard_of", "offset", "length", "label", "crc32")] == [
        np.int32, np.int64, np.int64, np.int32, np.uint32,
    ]  # fmt: skip
    assert [shard.samples for shard in index.shards] == [2, 2]


def test_folders_that_hold_no_dataset_are_told_apart(tmp_path, folder):
    with pytest.raises(InvalidInput, match="does not exist"):
        load_index(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="is not a folder"):
        load_index(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match=r"holds no index\.json"):
        load_index(tmp_path / "empty")
    (tmp_path / "empty" / ".building").mkdir()
    with pytest.raises(InvalidInput, match="is not finished"):
        load_index(tmp_path / "empty")
    (folder / "samples.npz").unlink()
    with pytest.raises(InvalidInput, match=r"samples\.npz is missing"):
        load_index(folder)


def test_an_index_of_another_kind_or_version_is_refused(folder):
    change_header(folder, version=99)
    with pytest.raises(InvalidInput, match="is of version 99"):
        load_index(folder)
    change_header(folder, format="mosaic")
    with pytest.raises(InvalidInput, match="not an index of this kind"):
        load_index(folder)


@pytest.mark.parametrize(
    "text",
    ["", '{"format": "rrcm-shards", "ver', '{"format": "rrcm-shards", "version": 1, "shards": [{"name": "a"}]}'],
)
def test_a_damaged_header_is_a_failure_or_no_index_at_all(folder, text):
    (folder / "index.json").write_text(text)
    with pytest.raises(RunFailure, match="is damaged"):
        load_index(folder)


def test_a_changed_byte_of_the_samples_is_noticed(folder):
    data = bytearray((folder / "samples.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "samples.npz").write_bytes(data)
    with pytest.raises(RunFailure, match=r"samples\.npz is damaged"):
        load_index(folder)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (
            {"label": np.array([0, 1, 0, 2])},
            r"label of sample sample-11 \(row 3, shard-000001.tar\) is none of 2 classes",
        ),
        ({"offset": np.array([0, 61, 0, 50])}, r"sample sample-01 \(row 1, shard-000000.tar\) lies outside its shard"),
        ({"length": np.array([40, 0, 40, 40])}, "lies outside its shard"),
        ({"label": np.array([0, 1, 0])}, "has 3 rows of label where the shards hold 4 samples"),
    ],
)
def test_samples_that_cannot_be_are_named(folder, columns, reason):
    change_samples(folder, **columns)
    with pytest.raises(RunFailure, match=reason):
        load_index(folder)


def test_a_missing_or_short_shard_is_named_before_anything_is_read(folder):
    (folder / "shard-000001.tar").write_bytes(bytes(99))
    with pytest.raises(RunFailure, match=r"shard-000001\.tar has 99 bytes where the index says 100"):
        load_index(folder)
    (folder / "shard-000001.tar").unlink()
    with pytest.raises(RunFailure, match=r"shard-000001\.tar is missing"):
        load_index(folder)


def test_a_dataset_without_samples_is_refused(tmp_path):
    nothing = {name: np.array([]) for name in ("offset", "length", "label", "crc32", "key")}
    write_index(tmp_path, ["cat"], [], nothing, {})
    with pytest.raises(RunFailure, match="holds no sample"):
        load_index(tmp_path)
