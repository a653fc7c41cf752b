"""Folders for the Rays of this machine: short, private, and gone with their owner, or swept by the next one."""

import fcntl
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER_PREFIX = "rrcm-ray-"
HOST_FILE = "host"
RAY_FOLDER = "ray"
"""Ray's own, in a folder of ours, as Ray lets everybody write into it."""
LONGEST_FOLDER = 39
"""Of a unix socket's 107 bytes, `/ray/session_<date>_<time>_<pid>/sockets/plasma_store` takes up to 68."""
NOT_YET_LOCKED_SECONDS = 60
"""A folder this young may belong to a process that has not locked it yet."""


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder, readable by this user alone and locked while it is used.

    Folders of killed runs on this host are swept first; hosts may share the place, and not their locks.
    """
    parent = Path(tempfile.gettempdir())
    if len(str(parent / f"{FOLDER_PREFIX}XXXXXXXX")) > LONGEST_FOLDER:
        parent = Path("/tmp")
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=parent))
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / HOST_FILE).write_text(socket.gethostname())
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{FOLDER_PREFIX}*/"):
        try:
            if time.time() - folder.stat().st_ctime < NOT_YET_LOCKED_SECONDS:
                continue
            if _host_of(folder) != socket.gethostname():
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:  # another user's, or just gone
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder.with_name(f"{folder.name}.json").unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # in use
            pass
        finally:
            os.close(lock)


def _host_of(folder: Path) -> str:
    """The host that made a folder; this one, if its maker was killed before it could say."""
    file = folder / HOST_FILE
    return file.read_text() if file.exists() else socket.gethostname()
