"""Folders and stores behind one face, against real servers."""

import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from s3_server import s3_server

from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.storage import remote
from rrcm_dist.storage.failures import NotInStore
from rrcm_dist.storage.remote import RemoteStore
from rrcm_dist.storage.store import open_store


@pytest.fixture(scope="module")
def bucket():
    with s3_server() as url:
        yield url


@pytest.fixture(params=["folder", "memory", "s3"])
def place(request, tmp_path):
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    return str(tmp_path / "there") if request.param == "folder" else f"memory://{tmp_path.name}/deep"


def test_files_come_back_as_they_were_put_in(place: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(remote, "CHUNK_BYTES", 30_000)
    store, file = open_store(place, patience=10), tmp_path / "file"
    file.write_bytes(os.urandom(100_001))
    assert store.names() == []
    for name in ("step-1/weights", "step-1/more/weights", "newest"):
        store.upload(file, name)
    assert store.names() == ["newest", "step-1/more/weights", "step-1/weights"]
    assert store.names("step-1") == ["step-1/more/weights", "step-1/weights"]
    assert store.size("newest") == 100_001
    assert store.read("newest") == file.read_bytes()
    store.download("step-1/more/weights", tmp_path / "new" / "back")
    assert (tmp_path / "new" / "back").read_bytes() == file.read_bytes()
    file.write_bytes(b"other")
    store.upload(file, "newest")
    assert store.read("newest") == b"other"
    store.delete("step-1")
    store.delete("never/was")
    assert store.names() == ["newest"]
    for ask in (store.read, store.size, lambda name: store.download(name, tmp_path / "nothing")):
        with pytest.raises(NotInStore, match=re.escape(f"{place}/step-1/weights")):
            ask("step-1/weights")
    assert not (tmp_path / "nothing").exists()


def test_ranges_are_read_at_once_and_by_forked_processes_too(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content := os.urandom(50_000))
    store = RemoteStore(f"{bucket}/ranges", patience=10)
    store.upload(tmp_path / "file", "file")
    asked = [(start, store.request("file", start, 321)) for start in range(0, 49_000, 997)]
    assert all(answer.result() == content[start : start + 321] for start, answer in asked)
    child = os.fork()
    if child == 0:
        os._exit(0 if store.request("file", 7, 100).result() == content[7:107] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    ("behaviour", "told"),
    [({"fail": 3}, "503"), ({"stall": 1}, "no answer in time"), ({"cut": 2}, "payload"), ({"forbid": 429}, "429")],
)
def test_a_store_that_fails_for_a_while_is_asked_again_and_named(served, behaviour, told: str, caplog) -> None:
    folder, server = served
    (folder / "file").write_bytes(content := os.urandom(10_000))
    server.behave(**behaviour)
    with caplog.at_level(logging.WARNING):
        answer = RemoteStore(server.url, patience=30).request("file", 100, 5000)
        if "forbid" in behaviour:
            time.sleep(0.5)
            server.behave()
        assert answer.result() == content[100:5100]
    first = caplog.messages[0]
    assert f"the store {server.url} stalls or fails: file: " in first
    assert told.lower() in first.lower()


def test_a_large_file_may_take_longer_than_patience(served, tmp_path: Path, monkeypatch) -> None:
    folder, server = served
    monkeypatch.setattr(remote, "SLOWEST_BYTES_PER_SECOND", 1000.0)
    (tmp_path / "file").write_bytes(content := os.urandom(5000))
    server.behave(delay=1.5)
    RemoteStore(server.url, patience=1).upload(tmp_path / "file", "file")
    assert (folder / "file").read_bytes() == content


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(("behaviour", "told"), [({"fail": 10**6}, "503"), ({"stall": 10**6}, "no answer in time")])
def test_a_store_that_never_comes_back_ends_in_words(served, behaviour, told: str) -> None:
    folder, server = served
    (folder / "file").write_bytes(b"content")
    server.behave(**behaviour)
    start = time.monotonic()
    with pytest.raises(RunFailure, match=rf"{server.url} has failed for \d+ s .*{server.url}/file: .*{told}"):
        RemoteStore(server.url, patience=2).read("file")
    assert 1.5 < time.monotonic() - start < 6


def test_what_does_not_pass_by_itself_is_told_at_once(served, bucket: str, tmp_path: Path, monkeypatch) -> None:
    folder, server = served
    (folder / "file").write_bytes(b"content")
    (tmp_path / "file").write_bytes(b"content")
    start = time.monotonic()
    for status in (401, 403):
        server.behave(forbid=status)
        with pytest.raises(InvalidInput, match=rf"{server.url}/file: the store forbids access \(status {status}\)"):
            RemoteStore(server.url, 600).read("file")
        with pytest.raises(InvalidInput, match="forbids access"):
            RemoteStore(server.url, 600).size("file")
    server.behave()
    with pytest.raises(NotInStore, match=f"{server.url}/other is not there"):
        RemoteStore(server.url, 600).size("other")
    with pytest.raises(InvalidInput, match=f"{server.url} cannot do this"):
        RemoteStore(server.url, 600).delete("file")
    with pytest.raises(RunFailure, match="7 bytes where 50 from byte 0 on were asked for"):
        RemoteStore(server.url, 600).request("file", 0, 50).result()
    with pytest.raises(InvalidInput, match="no such bucket: mend the URL, or AWS_ENDPOINT_URL"):
        RemoteStore("s3://no-such-bucket/x", 600).upload(tmp_path / "file", "file")
    for url in ("zzz://host/x", "gs://bucket/x"):
        with pytest.raises(InvalidInput, match=url):
            open_store(url)
    with pytest.raises(InvalidInput, match="there is no such host"):
        RemoteStore("http://nowhere.invalid/x", 600).read("file")
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(key)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(InvalidInput, match=r"no credentials were found for this store: .*AWS_ACCESS_KEY_ID"):
        RemoteStore(f"{bucket}/anew", 600).read("file")
    assert time.monotonic() - start < 30


def test_without_s3fs_it_is_said_how_to_get_it() -> None:
    script = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from rrcm_dist.storage.store import open_store\n"
        "try: open_store('s3://bucket/x')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told.startswith("InvalidInput s3://bucket/x: ")
    assert "pip install 'rrcm-dist[s3]'" in told


def test_uploads_by_http_are_puts(served, tmp_path: Path) -> None:
    folder, server = served
    (tmp_path / "file").write_bytes(content := os.urandom(10_000))
    server.behave(fail=1)
    RemoteStore(server.url, 10).upload(tmp_path / "file", "below/file")
    assert (folder / "below/file").read_bytes() == content


def test_a_process_that_has_read_ends_without_a_word(served) -> None:
    folder, server = served
    (folder / "file").write_bytes(b"content")
    script = (
        "from rrcm_dist.storage.remote import RemoteStore\n"
        f"store = RemoteStore({server.url!r}, 10)\n"
        "assert store.read('file') == b'content'\n"
        "waiting = [store.request('file', 0, 5) for _ in range(9)]"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
