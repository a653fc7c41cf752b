"""Files and folders appear whole or not at all, and a full disk is told in words."""

import errno
import json
import os
import shutil

import pytest

from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.files import (
    PARTIAL,
    disk_failure,
    gigabytes,
    require_free_space,
    sha256,
    whole_file,
    whole_folder,
    write_json,
    write_text,
)

FAILURES = [RuntimeError("the writer failed"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")]


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_a_file_is_not_there_until_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with whole_file(path) as aside:
        aside.write_text("content")
        assert not path.exists()
        assert aside.name.endswith(PARTIAL)
        assert aside.parent == path.parent, "only within one folder is a rename sure to be one step"
    assert path.read_text() == "content"
    assert names(tmp_path / "new") == ["file.txt"]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_failure_leaves_the_file_that_was_there_and_nothing_else(tmp_path, failure):
    path = tmp_path / "file.txt"
    path.write_text("before")

    def write_half():
        with whole_file(path) as aside:
            aside.write_text("half")
            raise failure

    with pytest.raises((type(failure), RunFailure)) as raised:
        write_half()
    assert isinstance(raised.value, RunFailure) == isinstance(failure, OSError)
    assert path.read_text() == "before"
    assert names(tmp_path) == ["file.txt"]


def test_a_file_replaces_the_one_before_it_while_that_is_being_read(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "before")
    with open(path) as reader:
        write_text(path, "after")
        assert reader.read() == "before"
    assert path.read_text() == "after"


def test_a_writer_that_writes_nothing_is_an_error_and_not_an_empty_file(tmp_path):
    with pytest.raises(RunFailure, match=r"file\.txt was not written"), whole_file(tmp_path / "file.txt"):
        pass
    assert names(tmp_path) == []


def test_text_is_utf_8_and_json_is_for_reading(tmp_path):
    write_json(tmp_path / "a.json", {"σ": 0.25, "radii": [1, 2]})
    text = (tmp_path / "a.json").read_bytes().decode("utf-8")
    assert '"σ": 0.25' in text
    assert text.endswith("}\n")
    assert json.loads(text) == {"σ": 0.25, "radii": [1, 2]}


def test_a_folder_is_not_there_until_it_is_whole(tmp_path):
    path = tmp_path / "new" / "folder"
    with whole_folder(path) as aside:
        (aside / "within").mkdir()
        (aside / "within" / "file.txt").write_text("content")
        assert not path.exists()
    assert names(tmp_path / "new") == ["file.txt", "folder", "within"]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_failure_leaves_nothing_of_a_folder(tmp_path, failure):
    def write_half():
        with whole_folder(tmp_path / "folder") as aside:
            (aside / "file.txt").write_text("half")
            raise failure

    with pytest.raises((type(failure), RunFailure)):
        write_half()
    assert names(tmp_path) == []


def test_a_folder_takes_nothing_over_from_an_attempt_that_was_killed(tmp_path):
    left_over = tmp_path / f".folder{PARTIAL}"
    left_over.mkdir()
    (left_over / "old.txt").write_text("of the killed attempt")
    with whole_folder(tmp_path / "folder") as aside:
        (aside / "new.txt").write_text("content")
    assert names(tmp_path) == ["folder", "new.txt"]


def test_a_folder_that_is_there_is_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious.txt").write_text("content")

    def replace():
        with whole_folder(tmp_path / "folder") as aside:
            (aside / "other.txt").write_text("content")

    with pytest.raises(RunFailure, match="folder was not written"):
        replace()
    assert names(tmp_path) == ["folder", "precious.txt"]


def test_space_is_asked_for_where_the_folder_will_be(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    future = tmp_path / "not" / "yet"
    require_free_space(future, free // 2, "a checkpoint")
    with pytest.raises(RunFailure) as raised:
        require_free_space(future, 10 * free + 10**15, "a checkpoint")
    message = str(raised.value)
    assert message.startswith(f"a checkpoint needs {gigabytes(10 * free + 10**15)} in {future}, where ")
    assert "GB are free: make room" in message
    assert names(tmp_path) == []


def test_a_full_disk_is_told_as_one(tmp_path):
    full = disk_failure(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), tmp_path / "file")
    assert "the disk is full" in str(full)
    assert str(tmp_path / "file") in str(full)
    other = disk_failure(PermissionError(errno.EACCES, "Permission denied"), tmp_path / "file")
    assert str(tmp_path / "file") in str(other)
    assert "Permission denied" in str(other)


def test_a_place_where_no_file_can_be_is_the_users_mistake(tmp_path):
    (tmp_path / "file").write_text("content")
    with pytest.raises(InvalidInput, match=r"file/within.* cannot be written .*: name another folder"):
        write_text(tmp_path / "file" / "within" / "a.txt", "text")
    with pytest.raises(InvalidInput, match="name another folder"), whole_folder(tmp_path / "file" / "within"):
        pass
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (12_340_000, "12.3 MB"), (3_200_000_000, "3.2 GB")],
)
def test_sizes_are_for_people(number, words):
    assert gigabytes(number) == words


def test_sha256_is_that_of_the_standard_vector(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
