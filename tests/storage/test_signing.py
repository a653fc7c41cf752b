"""Ranges by signed URLs: the same bytes with less work, and s3fs wherever the store does not take them."""

import os

import pytest
from s3_server import s3_server

from rrcm_dist.errors import InvalidInput
from rrcm_dist.storage import signing
from rrcm_dist.storage.filesystems import filesystem_of
from rrcm_dist.storage.remote import RemoteStore


@pytest.fixture
def stored(tmp_path):
    content = os.urandom(50_000)
    (tmp_path / "file").write_bytes(content)
    with s3_server() as bucket:
        store = RemoteStore(f"{bucket}/below a folder", patience=10)
        store.upload(tmp_path / "file", "file")
        yield store, content


def ask(store: RemoteStore, content: bytes, times: int) -> None:
    answers = [(start, store.request("file", start, 300)) for start in range(0, 100 * times, 100)]
    assert all(answer.result() == content[start : start + 300] for start, answer in answers)


def test_ranges_come_by_signed_urls(stored, monkeypatch) -> None:
    store, content = stored

    async def not_asked(*_: object, **__: object) -> bytes:
        raise AssertionError("s3fs was asked")

    monkeypatch.setattr(filesystem_of(store.place)[0], "_cat_file", not_asked)
    ask(store, content, 60)


def test_a_store_that_takes_no_signed_urls_is_read_without(stored, monkeypatch) -> None:
    store, content = stored
    signed = []

    async def refused(_: object, __: object, path: str) -> str:
        signed.append(path)
        return f"{os.environ['AWS_ENDPOINT_URL']}/no-such-bucket/file"

    monkeypatch.setattr(signing.SignedRanges, "_url", refused)
    for _ in range(2 * signing.PLAIN_AFTER):
        ask(store, content, 1)
    assert len(signed) == signing.PLAIN_AFTER


def test_what_is_not_in_the_bucket_is_told_as_ever(stored) -> None:
    store, _ = stored
    with pytest.raises(InvalidInput, match="other is not there"):
        store.request("other", 0, 10).result()
