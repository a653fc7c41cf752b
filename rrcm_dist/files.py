"""Files and folders that appear whole: written aside, flushed to disk, renamed. Readers never see half of one."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rrcm_dist.errors import InvalidInput, RRCMError, RunFailure

PARTIAL = ".partial"
"""What the name of anything unfinished ends with; safe to delete when nothing is running."""


def is_locked(path: str | Path) -> bool:
    """Whether a process holds the lock of this file (flock, exclusive); False where there is no such file."""
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a path aside to write to; on success it is flushed and renamed to `path`, on failure it is removed."""
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        flush(aside)
        os.replace(aside, path)
        flush(path.parent)
    except OSError as error:
        raise disk_failure(error, path) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Yield a folder aside to fill; on success its files are flushed and it becomes `path`, which must not exist."""
    path = Path(path)
    aside = path.with_name(f".{path.name}{PARTIAL}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        for file in sorted(aside.rglob("*")):
            flush(file)
        flush(aside)
        os.rename(aside, path)
        flush(path.parent)
    except OSError as error:
        raise disk_failure(error, path) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON; the file appears whole."""
    with whole_file(path) as aside:
        aside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8; the file appears whole."""
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Ask the operating system to put a file or a folder's entries on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_free_space(folder: str | Path, needed_bytes: int, what: str) -> None:
    """Raise `RunFailure` unless the disk of `folder` has `needed_bytes` free for `what`."""
    free_bytes = shutil.disk_usage(_existing(folder)).free
    if free_bytes < needed_bytes:
        raise RunFailure(
            f"{what} needs {gigabytes(needed_bytes)} in {folder}, where {gigabytes(free_bytes)} are free: "
            "make room or choose another folder"
        )


def disk_failure(error: OSError, path: str | Path) -> RRCMError:
    """The error to raise when writing `path` failed, in words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(_existing(path)).free
        return RunFailure(f"the disk is full: {path} was not written ({gigabytes(free)} free); make room and run again")
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS):
        return InvalidInput(f"{path} cannot be written ({error.strerror}): name another folder")
    return RunFailure(f"{path} was not written: {error.strerror or error}")


def _existing(path: str | Path) -> Path:
    """The nearest folder above `path` that is there."""
    folder = Path(path).absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def gigabytes(number_of_bytes: float) -> str:
    """`number_of_bytes` for people: '3.2 GB', '12.0 MB', '800 bytes'."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number_of_bytes >= size:
            return f"{number_of_bytes / size:.1f} {unit}"
    return f"{int(number_of_bytes)} bytes"
