"""Shards in stores: the batches of the local folder, whatever the store does; or words."""

import logging
import os
import pickle
import shutil
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from s3_server import s3_server

from benchmarks.range_server import range_server
from rrcm_dist.data import parts, reading_ahead
from rrcm_dist.data.index import DatasetIndex, load_index, training_identity
from rrcm_dist.data.loaders import evaluation_images, pretraining_loader
from rrcm_dist.data.parts import PartRequest, told_ahead
from rrcm_dist.data.reading import SampleReader
from rrcm_dist.data.stores import StoreSettings
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.storage import remote
from rrcm_dist.storage.store import open_store

STEPS = 6
"""One and a half epochs of four steps."""
FEW = reading_ahead.WRONG_ANSWERS - 1
"""So many wrong answers are forgiven, even all to one request."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(parts, "PART", 5)  # so that a batch of 12 is made of several parts
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 1.5)
    monkeypatch.setattr(remote, "SECONDS_BETWEEN_WARNINGS", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def server(photo_folder: Path):
    with range_server(photo_folder.parent) as running:
        yield running


@pytest.fixture(scope="module")
def bucket(photo_folder: Path):
    with s3_server() as url:
        for file in photo_folder.iterdir():
            open_store(f"{url}/photographs").upload(file, file.name)
        yield url


@pytest.fixture
def url(server, photo_folder: Path) -> str:
    server.behave()
    return f"{server.url}/{photo_folder.name}"


@pytest.fixture
def batches_of(order_of, pretrain_config):
    def read(index: DatasetIndex, workers: int = 0):
        return list(pretraining_loader(index, order_of(index), pretrain_config(workers), 0, 1, 0, STEPS))

    return read


def same(batches, expected) -> None:
    for one, other in zip(batches, expected, strict=True):
        for field in fields(one):
            a, b = getattr(one, field.name), getattr(other, field.name)
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field.name


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["http", "s3"])
def test_batches_are_those_of_the_local_folder(kind, workers, request, photo_index, batches_of, url: str) -> None:
    place = url if kind == "http" else f"{request.getfixturevalue('bucket')}/photographs"
    index = load_index(place)
    assert training_identity(index) == training_identity(photo_index)
    same(batches_of(index, workers), batches_of(photo_index))


def test_a_second_run_asks_the_store_for_no_sample(server, url: str, photo_index, batches_of) -> None:
    expected = batches_of(photo_index)
    same(batches_of(load_index(url), workers=2), expected)
    first = server.asked(".tar")
    assert len(first) > 10
    server.behave()
    same(batches_of(load_index(url), workers=2), expected)
    assert server.asked(".tar") == []
    assert [each["path"].rpartition("/")[2] for each in server.asked()] == ["index.json"]
    index = load_index(url, StoreSettings(cache_gb=0))
    same(batches_of(index), expected)
    assert len(server.asked(".tar")) > 10


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "behaviour", [{"fail": 25}, {"stall": 3}, {"cut": 10}, {"corrupt": reading_ahead.WRONG_ANSWERS - 1}], ids=str
)
def test_a_store_that_misbehaves_for_a_while_changes_no_batch(
    behaviour, workers, server, url: str, photo_index, batches_of, caplog
) -> None:
    index = load_index(url)
    server.behave(only=".tar", **behaviour)
    with caplog.at_level(logging.WARNING):
        same(batches_of(index, workers), batches_of(photo_index))
    if not workers:  # those of workers write for themselves
        assert any(f"the store {url} stalls or fails: shard-" in told for told in caplog.messages)
    server.behave(only=".tar", forbid=403)
    same(batches_of(index), batches_of(photo_index))  # and nothing wrong came into the cache


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_that_never_comes_back_ends_the_run_in_words(workers, server, url: str, batches_of) -> None:
    index = load_index(url, StoreSettings(patience=2))
    server.behave(only=".tar", stall=10**6)
    start = time.monotonic()
    with pytest.raises(RunFailure, match=rf"the store {url} has failed for \d+ s .*\.tar: no answer in time"):
        batches_of(index, workers)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_that_forbids_access_ends_the_run_at_once(workers, server, url: str, batches_of) -> None:
    index = load_index(url)
    server.behave(only=".tar", forbid=403)
    start = time.monotonic()
    with pytest.raises(InvalidInput, match=rf"{url}/shard-\d+\.tar: the store forbids access"):
        batches_of(index, workers)
    assert time.monotonic() - start < 20
    server.behave(forbid=401)
    with pytest.raises(InvalidInput, match=rf"{url}/index.json: the store forbids access \(status 401\)"):
        load_index(url)


def test_a_sample_damaged_in_the_store_is_replaced_as_in_a_folder(
    server, photo_folder: Path, batches_of, request
) -> None:
    damaged = Path(shutil.copytree(photo_folder, photo_folder.parent / "damaged"))
    request.addfinalizer(lambda: shutil.rmtree(damaged))
    index = load_index(damaged)
    with open(damaged / index.shards[index.shard_of[20]].name, "r+b") as shard:
        shard.seek(int(index.offset[20]) + 20)
        shard.write(b"damaged")
    server.behave()
    batches = batches_of(load_index(f"{server.url}/damaged"))
    assert sum(batch.failures for batch in batches) > 0
    same(batches, batches_of(index))


def test_what_is_wrong_in_the_cache_is_read_anew(server, url: str, tmp_path: Path, photo_index, batches_of) -> None:
    batches_of(load_index(url))
    for file in (tmp_path / "cache/rrcm-dist/shards").glob("*.pieces"):
        with open(file, "r+b") as opened:
            opened.write(b"x" * (file.stat().st_size // 2))
    for file in (tmp_path / "cache/rrcm-dist/shards").glob("*.npz"):
        file.write_bytes(b"nothing")
    same(batches_of(load_index(url)), batches_of(photo_index))


def test_a_missing_or_damaged_dataset_is_told_at_once(server, photo_folder: Path, request) -> None:
    broken = Path(shutil.copytree(photo_folder, photo_folder.parent / "broken"))
    request.addfinalizer(lambda: shutil.rmtree(broken))
    server.behave()
    place = f"{server.url}/broken"
    with pytest.raises(InvalidInput, match=f"{server.url}/nowhere/index.json is not there"):
        load_index(f"{server.url}/nowhere")
    server.behave(only=".npz", corrupt=1)
    assert len(load_index(place)) == len(load_index(photo_folder))
    os.truncate(broken / "shard-000003.tar", 700)
    with pytest.raises(RunFailure, match=f"{place}: shard-000003.tar has 700 bytes where the index says"):
        load_index(place)
    (broken / "shard-000003.tar").unlink()
    with pytest.raises(RunFailure, match=f"{place}: shard-000003.tar is missing"):
        load_index(place)
    (broken / "samples.npz").write_bytes(b"nothing")
    with pytest.raises(RunFailure, match=rf"{place}/samples.npz is damaged \(its sha256"):
        load_index(place, StoreSettings(cache=str(broken / "cache")))
    (broken / "index.json").write_text("{")
    with pytest.raises(RunFailure, match=rf"{place}/index.json is damaged"):
        load_index(place)


def test_a_missing_shard_in_a_bucket_is_told_at_once(bucket: str, photo_folder: Path) -> None:
    store = open_store(f"{bucket}/incomplete")
    for name in ("index.json", "samples.npz", "shard-000000.tar"):
        store.upload(photo_folder / name, name)
    with pytest.raises(RunFailure, match=r"incomplete: shard-000001.tar is missing \(and 4 more problems\)"):
        load_index(f"{bucket}/incomplete")


def test_what_is_read_ahead_stays_within_its_bound(server, url: str, photo_index, monkeypatch) -> None:
    sizes = photo_index.length
    bound = int(sizes.max())
    assert 3 * sizes.mean() < bound < sizes.sum() / 3
    monkeypatch.setattr(reading_ahead, "AHEAD_BYTES", bound)
    monkeypatch.setattr(reading_ahead, "GAP_BYTES", 0)
    reader, local = SampleReader(load_index(url, StoreSettings(cache_gb=0))), SampleReader(photo_index)
    order = np.random.default_rng(0).permutation(len(photo_index)).tolist()
    server.behave()
    reader.expect(order)
    for done, sample_id in enumerate(order):
        assert reader.read(sample_id) == local.read(sample_id)
        time.sleep(0.02)
        asked = sum(each["bytes"] for each in server.asked(".tar"))
        assert asked <= sizes[order[: done + 1]].sum() + bound
    assert len(server.asked(".tar")) == len(order)
    assert asked == sizes.sum()


def test_neighbours_are_read_by_one_request(server, url: str, photo_index) -> None:
    index = load_index(url)
    server.behave()
    images = list(evaluation_images(index, 16, range(len(index))))
    assert torch.equal(
        torch.cat([batch.images for batch in images]),
        torch.cat([batch.images for batch in evaluation_images(photo_index, 16, range(len(index)))]),
    )
    assert len(server.asked(".tar")) == len(index.shards)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_worker_is_told_what_it_will_be_asked_for_next(workers: int) -> None:
    requests = [PartRequest(step, 0, np.arange(3) + 10 * step, 3) for step in range(17)]
    told = list(told_ahead(requests, workers))
    turn = max(1, workers)
    for number, request in enumerate(told):
        later = requests[number + turn :: turn][: parts.PARTS_AHEAD]
        assert request.soon.tolist() == [sample for each in later for sample in each.sample_ids]
        assert request.sample_ids.tolist() == requests[number].sample_ids.tolist()


def test_a_cache_that_cannot_be_written_slows_and_no_more(url: str, tmp_path: Path, photo_index, batches_of) -> None:
    (tmp_path / "file").write_text("no folder")
    index = load_index(url, StoreSettings(cache=str(tmp_path / "file")))
    same(batches_of(index, workers=2), batches_of(photo_index))


def test_readers_can_be_handed_to_other_processes(url: str, photo_index) -> None:
    reader = SampleReader(load_index(url))
    reader.expect(range(9))
    first = reader.read(0)
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.read(0) == first
    assert copy.read(8) == SampleReader(photo_index).read(8)
