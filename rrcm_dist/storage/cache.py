"""A bounded cache of pieces of files on this machine's disk, shared by all of its processes.

    KEY.pieces     one a file: as long as the file and sparse, then a byte per piece, 1 once the piece is there
    KEY.npz …      whole files that others put here; not counted, never evicted
    usage          bytes that the pieces take (int64), an upper bound; its lock is held while it changes

A piece is written before its mark, so a process that is killed leaves no mark of what it has not written; what a crash
of the machine or a wrong disk leaves, the reader's checksum must find. Files are evicted whole, those read longest ago
first: cut to nothing, then removed, so that their room is free even while other processes have them open.
"""

import fcntl
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rrcm_dist.files import PARTIAL

SUFFIX = ".pieces"
USAGE_FILE = "usage"
BLOCK = 4096
"""What a disk gives at least to a piece."""
FILLED_AFTER_EVICTION = 0.9
"""Of the bound: room is made for many pieces at once."""
OPEN_FILES = 64
SECONDS_BETWEEN_TOUCHES = 60.0
SECONDS_FOR_LOCK = 2.0
SECONDS_OF_PARTIAL = 86400.0
"""After which an unfinished file is that of a process which was killed."""

logger = logging.getLogger(__name__)
_told: set[Path] = set()
"""Folders of which this process, or the one that it was forked from, has said that they cannot be written."""


@dataclass(frozen=True)
class CachedFile:
    """A file of which pieces are cached."""

    key: str
    """Names its content, such as its checksum."""
    bytes: int
    pieces: int


def user_cache() -> Path:
    """Where programs of this user keep what can be had again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rrcm-dist"


class PieceCache:
    """See above. Safe when several processes and threads write at once, and when one is killed at any moment.

    Whatever goes wrong with its disk, it only holds less: that is said once, and nothing is raised.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Keep at most `limit_bytes` in `folder`; 0 keeps nothing and touches nothing."""
        self._folder, self._limit, self._writable = folder, limit_bytes, limit_bytes > 0
        self._open: OrderedDict[str, int] = OrderedDict()
        self._touched: dict[str, float] = {}
        self._lock = threading.Lock()
        if self._writable:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with self._usage():
                    pass
            except OSError as error:
                self._give_up(error)

    def has(self, file: CachedFile, piece: int) -> bool:
        """Whether `get` would find the piece now."""
        if not self._limit:
            return False
        with self._lock, suppress(OSError):
            return self._marked(file, piece) is not None
        return False

    def get(self, file: CachedFile, piece: int, start: int, length: int) -> bytes | None:
        """The `length` bytes from `start` on, which are piece number `piece`; None where they are not here.

        The caller must check them.
        """
        if not self._limit:
            return None
        with self._lock, suppress(OSError):
            descriptor = self._marked(file, piece)
            if descriptor is None:
                return None
            data = os.pread(descriptor, length, start)
            self._touch(file, descriptor)
            return data if len(data) == length else None
        return None

    def put(self, file: CachedFile, piece: int, start: int, data: bytes) -> None:
        """Keep a piece, evicting others where there is no room."""
        if not self._writable:
            return
        first, last = start // BLOCK, (start + len(data) - 1) // BLOCK
        needed = (last - first + 3) * BLOCK  # one for the mark, one for the file system's own
        with self._lock:
            try:
                if self._reserve(needed) and (descriptor := self._descriptor(file, create=True)) is not None:
                    os.pwrite(descriptor, data, start)
                    os.pwrite(descriptor, b"\1", file.bytes + piece)
            except OSError as error:
                self._give_up(error)

    def close(self) -> None:
        """Close the files; reading opens them again."""
        with self._lock:
            while self._open:
                os.close(self._open.popitem()[1])

    def _marked(self, file: CachedFile, piece: int) -> int | None:
        """The file's descriptor, where the piece is marked as there."""
        descriptor = self._descriptor(file, create=False)
        if descriptor is None or os.pread(descriptor, 1, file.bytes + piece) != b"\1":
            return None
        return descriptor

    def _descriptor(self, file: CachedFile, create: bool) -> int | None:
        descriptor = self._open.pop(file.key, None)
        if descriptor is not None and os.fstat(descriptor).st_nlink == 0:  # evicted by whichever process
            os.close(descriptor)
            descriptor = None
        if descriptor is None:
            try:
                descriptor = os.open(self._path(file), os.O_RDWR | (os.O_CREAT if create else 0), 0o644)
            except FileNotFoundError:
                return None
            if create and os.fstat(descriptor).st_size < file.bytes + file.pieces:
                os.ftruncate(descriptor, file.bytes + file.pieces)
        self._open[file.key] = descriptor
        if len(self._open) > OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        return descriptor

    def _path(self, file: CachedFile) -> Path:
        return self._folder / f"{file.key}{SUFFIX}"

    def _touch(self, file: CachedFile, descriptor: int) -> None:
        """Eviction goes by the time of modification: that of reading is often not kept."""
        now = time.monotonic()
        if now - self._touched.get(file.key, -SECONDS_BETWEEN_TOUCHES) >= SECONDS_BETWEEN_TOUCHES:
            self._touched[file.key] = now
            os.utime(descriptor)

    def _reserve(self, needed: int) -> bool:
        """Count `needed` bytes as used, making room for them; False where there cannot be room, or others hold on."""
        with self._usage() as usage:
            if usage is None:
                return False
            stored = os.pread(usage, 8, 0)
            used = int.from_bytes(stored, "little") if len(stored) == 8 else self._evict(needed)
            if used + needed > self._limit:
                used = self._evict(needed)
            if used + needed > self._limit:
                return False
            os.pwrite(usage, (used + needed).to_bytes(8, "little"), 0)
            return True

    @contextmanager
    def _usage(self) -> Iterator[int | None]:
        """The usage file, locked; None where another process does not let go of it."""
        descriptor = os.open(self._folder / USAGE_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            deadline, locked = time.monotonic() + SECONDS_FOR_LOCK, False
            while not locked and time.monotonic() < deadline:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    locked = True
                except BlockingIOError:
                    time.sleep(0.002)
            yield descriptor if locked else None
        finally:
            os.close(descriptor)

    def _evict(self, needed: int) -> int:
        """Remove files until `needed` bytes fit well; returns the bytes that are then used.

        Pieces that others have reserved and not yet written are not among them: what is left free has room for those.
        """
        found = []
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                status = path.stat()
                if path.suffix == SUFFIX:
                    found.append((status.st_mtime, status.st_blocks * 512, path))
                elif path.name.endswith(PARTIAL) and time.time() - status.st_mtime > SECONDS_OF_PARTIAL:
                    path.unlink()
        used = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if used + needed <= FILLED_AFTER_EVICTION * self._limit:
                break
            os.truncate(path, 0)
            path.unlink()
            used -= size
        return used

    def _give_up(self, error: OSError) -> None:
        self._writable = False
        if self._folder in _told:
            return
        _told.add(self._folder)
        logger.warning(
            "nothing more is kept in the cache %s (%s): what is read from the store is asked for again each time; "
            "make room or set data.cache to another folder", self._folder, error.strerror or error,
        )  # fmt: skip

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            self.close()
