"""The cache of pieces: bounded, shared by processes that may be killed, never more than a help."""

import hashlib
import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np

from rrcm_dist.storage import cache as cache_module
from rrcm_dist.storage.cache import CachedFile, PieceCache

PIECE = 10_000
PIECES = 40
FILES = [CachedFile(f"file-{number}", PIECE * PIECES, PIECES) for number in range(6)]


def content(file: CachedFile, piece: int) -> bytes:
    return hashlib.shake_256(f"{file.key} {piece}".encode()).digest(PIECE)


def put(cache: PieceCache, file: CachedFile, piece: int) -> None:
    cache.put(file, piece, piece * PIECE, content(file, piece))


def get(cache: PieceCache, file: CachedFile, piece: int) -> bytes | None:
    found = cache.get(file, piece, piece * PIECE, PIECE)
    assert cache.has(file, piece) == (found is not None)
    return found


def bytes_on_disk(folder: Path) -> int:
    found = 0
    for path in folder.glob("*.pieces"):
        try:
            found += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return found


def test_pieces_come_back_in_other_processes_and_what_was_never_put_in_does_not(tmp_path: Path) -> None:
    one, other = PieceCache(tmp_path, 10**7), PieceCache(tmp_path, 10**7)
    for piece in (0, 7, PIECES - 1):
        put(one, FILES[0], piece)
    for piece in range(PIECES):
        expected = content(FILES[0], piece) if piece in (0, 7, PIECES - 1) else None
        assert get(one, FILES[0], piece) == get(other, FILES[0], piece) == expected
    assert get(other, FILES[1], 0) is None


def test_the_file_read_longest_ago_makes_room(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(cache_module, "SECONDS_BETWEEN_TOUCHES", 0.0)
    limit = int(4.2 * PIECES * PIECE)
    cache, other = PieceCache(tmp_path, limit), PieceCache(tmp_path, limit)
    for file in FILES[:3]:
        for piece in range(PIECES):
            put(cache, file, piece)
        time.sleep(0.02)
    assert get(other, FILES[0], 3) == content(FILES[0], 3)  # so that FILES[1] is the one read longest ago
    for file in FILES[3:5]:
        for piece in range(PIECES):
            put(other, file, piece)
            assert bytes_on_disk(tmp_path) <= limit
    assert get(cache, FILES[1], 3) is None
    assert get(cache, FILES[0], 3) == content(FILES[0], 3)
    put(cache, FILES[1], 3)  # of a file that the other has evicted while it was open here
    assert get(other, FILES[1], 3) == content(FILES[1], 3)


def work_at_random(folder: Path, limit: int, seed: int, seconds: float) -> None:
    cache, generator, end = PieceCache(folder, limit), np.random.default_rng(seed), time.monotonic() + seconds
    while time.monotonic() < end:
        file, piece = FILES[generator.integers(len(FILES))], int(generator.integers(PIECES))
        found = get_alone(cache, file, piece)
        if found is None:
            put(cache, file, piece)
        elif found != content(file, piece):
            os._exit(3)


def get_alone(cache: PieceCache, file: CachedFile, piece: int) -> bytes | None:
    return cache.get(file, piece, piece * PIECE, PIECE)


def test_many_processes_keep_the_bound_and_nothing_is_wrong_when_they_are_killed(tmp_path: Path) -> None:
    limit = 2 * PIECES * PIECE  # a third of all
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=work_at_random, args=(tmp_path, limit, seed, 60.0)) for seed in range(4)]
    for worker in workers:
        worker.start()
    most, end = 0, time.monotonic() + 3
    while time.monotonic() < end:
        most = max(most, bytes_on_disk(tmp_path))
        time.sleep(0.01)
    assert [worker.exitcode for worker in workers] == [None] * 4
    for worker in workers:
        os.kill(worker.pid or 0, signal.SIGKILL)
        worker.join()
    assert limit / 2 < most <= limit
    cache, there = PieceCache(tmp_path, limit), 0
    for file in FILES:
        for piece in range(PIECES):
            found = get(cache, file, piece)
            assert found in (None, content(file, piece))
            there += found is not None
    assert there > 0
    for file in FILES:
        for piece in range(PIECES):
            put(cache, file, piece)  # what the killed ones had reserved is found again
    assert get(cache, FILES[-1], PIECES - 1) == content(FILES[-1], PIECES - 1)
    assert bytes_on_disk(tmp_path) <= limit


def test_a_cache_of_nothing_touches_nothing(tmp_path: Path) -> None:
    cache = PieceCache(tmp_path / "cache", 0)
    put(cache, FILES[0], 0)
    assert get(cache, FILES[0], 0) is None
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_done_without_and_told_once(tmp_path: Path, monkeypatch, caplog) -> None:
    (tmp_path / "file").write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        cache = PieceCache(tmp_path / "file" / "cache", 10**7)
        put(cache, FILES[0], 0)
        assert get(PieceCache(tmp_path / "file" / "cache", 10**7), FILES[0], 0) is None
    assert [f"in the cache {tmp_path}/file/cache (Not a directory)" in told for told in caplog.messages] == [True]

    caplog.clear()
    cache = PieceCache(tmp_path / "cache", 10**7)
    put(cache, FILES[0], 0)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with caplog.at_level(logging.WARNING), monkeypatch.context() as disk:
        disk.setattr(cache_module.os, "pwrite", full)
        for piece in range(1, 5):
            put(cache, FILES[0], piece)
    assert [f"in the cache {tmp_path}/cache (No space left" in told for told in caplog.messages] == [True]
    assert get(cache, FILES[0], 0) == content(FILES[0], 0)
    assert get(cache, FILES[0], 1) is None
