"""Samples out of a store: from the local cache, or by ranged reads that are begun before they are needed.

Samples that are expected are asked for in the order in which they will be read, as many as `AHEAD_BYTES` hold; those
that lie close together by one request. A process holds no more than that, besides the sample that it reads.
"""

import time
import zlib
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from rrcm_dist.data.index import DatasetIndex, Shard
from rrcm_dist.storage.cache import CachedFile, PieceCache
from rrcm_dist.storage.remote import RemoteStore

AHEAD_BYTES = 32 << 20
"""Most that a process has asked for or holds without having read it."""
GAP_BYTES = 64 << 10
"""Bytes between two samples that are rather read than made two requests of."""
RANGE_BYTES = 4 << 20
"""Most that one request of several samples asks for."""
WRONG_ANSWERS = 4
"""After so many whose checksum is not the index's, it is taken for the shard that is damaged, not the answer."""
FIRST_PAUSE_SECONDS = 0.1
"""After the first wrong answer, twice as long after each further one."""


@dataclass
class _Range:
    """Part of a shard, asked for."""

    start: int
    end: int
    answer: "Future[bytes]"
    waiting: int
    """Samples in it that have not been read."""


class ReaderAhead:
    """Reads samples of a dataset in a store by id, for one thread. In another process it begins anew."""

    def __init__(self, index: DatasetIndex) -> None:
        self._index = index
        self._store = RemoteStore(index.place, index.store.patience)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._cache: PieceCache | None = None
        self._expected: dict[int, None] = {}
        self._coming: dict[int, _Range] = {}
        self._held_bytes = 0
        counts = [shard.samples for shard in self._index.shards]
        self._first_of = np.cumsum(counts) - counts

    def expect(self, sample_ids: Iterable[int]) -> None:
        """Samples that will be read next, in this order, after those expected before."""
        new = [each for each in sample_ids if each not in self._coming and each not in self._expected]
        self._expected |= dict.fromkeys(new)
        self._ask_ahead()

    def read(self, sample_id: int) -> bytes | None:
        """The sample's bytes; None where the store has given wrong ones `WRONG_ANSWERS` times. Raises as `Store`."""
        self._expected.pop(sample_id, None)
        coming = self._coming.pop(sample_id, None)
        try:
            if coming is None and (data := self._cached(sample_id)) is not None:
                return data
            for wrong in range(WRONG_ANSWERS):
                if wrong:
                    time.sleep(FIRST_PAUSE_SECONDS * 2 ** (wrong - 1))
                data = self._taken(sample_id, coming or self._ask([sample_id]))
                coming = None
                if self._is_right(sample_id, data):
                    self._keep(sample_id, data)
                    return data
                problem = f"the checksum of sample {self._index.keys[sample_id]} is wrong"
                self._store.warn(self._shard(sample_id).name, problem)
            return None
        finally:
            self._ask_ahead()

    def close(self) -> None:
        """Stop what is being read ahead, and close the cache."""
        for coming in self._coming.values():
            coming.answer.cancel()
        if self._cache is not None:
            self._cache.close()
        self._begin_anew()

    def _taken(self, sample_id: int, coming: _Range) -> bytes:
        coming.waiting -= 1
        if not coming.waiting:
            self._held_bytes -= coming.end - coming.start
        offset, length = self._place(sample_id)
        return coming.answer.result()[offset - coming.start : offset - coming.start + length]

    def _ask_ahead(self) -> None:
        """Ask for what is expected and not in the cache, as far as it fits."""
        chosen: list[int] = []
        size = 0
        while self._expected:
            sample_id = next(iter(self._expected))
            length = self._place(sample_id)[1] + GAP_BYTES
            if (self._held_bytes or chosen) and self._held_bytes + size + length > AHEAD_BYTES:
                break
            del self._expected[sample_id]
            if not self._is_cached(sample_id):
                chosen.append(sample_id)
                size += length
        for group in self._neighbours(chosen):
            self._coming |= dict.fromkeys(group, self._ask(group))

    def _neighbours(self, sample_ids: list[int]) -> list[list[int]]:
        """The samples in groups that one request each reads, of one shard and close together; first needed first."""
        groups: list[list[int]] = []
        start = end = -1
        shard = None
        for sample_id in sorted(sample_ids):  # which is by shard, then by offset
            offset, length = self._place(sample_id)
            near = shard == self._index.shard_of[sample_id] and 0 <= offset - end <= GAP_BYTES
            if near and offset + length - start <= RANGE_BYTES:
                groups[-1].append(sample_id)
            else:
                groups.append([sample_id])
                start, shard = offset, self._index.shard_of[sample_id]
            end = offset + length
        turn = {sample_id: number for number, sample_id in enumerate(sample_ids)}
        return sorted(groups, key=lambda group: min(turn[sample_id] for sample_id in group))

    def _ask(self, group: list[int]) -> _Range:
        start, (last, length) = self._place(group[0])[0], self._place(group[-1])
        answer = self._store.request(self._shard(group[0]).name, start, last + length - start)
        self._held_bytes += last + length - start
        return _Range(start, last + length, answer, len(group))

    def _is_right(self, sample_id: int, data: bytes) -> bool:
        return zlib.crc32(data) == int(self._index.crc32[sample_id])

    def _place(self, sample_id: int) -> tuple[int, int]:
        """Offset and length of a sample in its shard."""
        return int(self._index.offset[sample_id]), int(self._index.length[sample_id])

    def _shard(self, sample_id: int) -> Shard:
        return self._index.shards[self._index.shard_of[sample_id]]

    # --- the cache

    def _is_cached(self, sample_id: int) -> bool:
        return self._opened_cache().has(*self._piece(sample_id))

    def _cached(self, sample_id: int) -> bytes | None:
        data = self._opened_cache().get(*self._piece(sample_id), *self._place(sample_id))
        return data if data is not None and self._is_right(sample_id, data) else None

    def _keep(self, sample_id: int, data: bytes) -> None:
        self._opened_cache().put(*self._piece(sample_id), self._place(sample_id)[0], data)

    def _opened_cache(self) -> PieceCache:
        if self._cache is None:
            self._cache = self._index.store.open_cache()
        return self._cache

    def _piece(self, sample_id: int) -> tuple[CachedFile, int]:
        number = int(self._index.shard_of[sample_id])
        shard = self._index.shards[number]
        return CachedFile(shard.sha256, shard.bytes, shard.samples), sample_id - int(self._first_of[number])

    def __getstate__(self) -> dict[str, Any]:
        return {"_index": self._index, "_store": self._store}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin_anew()

    def __del__(self) -> None:
        if hasattr(self, "_coming"):
            self.close()
