"""Bytes of samples out of a folder or a store, compared with the checksums of the index."""

import os
import zlib
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Protocol

from rrcm_dist.data.index import DatasetIndex
from rrcm_dist.data.reading_ahead import ReaderAhead
from rrcm_dist.errors import RunFailure
from rrcm_dist.storage.store import is_url

OPEN_SHARDS = 64
"""Shards kept open per process; the least recently read one is closed first."""


class CheckedReader(Protocol):
    """Reads samples by id, for one thread. May be handed to other processes: each opens for itself what it reads."""

    def expect(self, sample_ids: Iterable[int]) -> None:
        """Samples that will be read next, in this order, after those expected before."""

    def read(self, sample_id: int) -> bytes | None:
        """The image's bytes as they were put in; None where what is there has another checksum than the index.

        Raises `RunFailure` where the shard is missing or shorter, and what a store raises (see `Store`).
        """

    def close(self) -> None:
        """Close what is open; reading opens it again."""


def checked_reader(index: DatasetIndex) -> CheckedReader:
    """The reader of a dataset, wherever it is."""
    return ReaderAhead(index) if is_url(index.place) else _FolderReader(index)


class _FolderReader:
    def __init__(self, index: DatasetIndex) -> None:
        self._index = index
        self._descriptors: OrderedDict[int, int] = OrderedDict()
        self._expected: set[int] = set()

    def expect(self, sample_ids: Iterable[int]) -> None:
        """Let the operating system begin to read them into its memory: disks and NFS serve several at once."""
        if not hasattr(os, "posix_fadvise"):
            return
        for sample_id in sample_ids:
            if sample_id not in self._expected:
                self._expected.add(sample_id)
                place = int(self._index.offset[sample_id]), int(self._index.length[sample_id])
                with suppress(OSError):  # reading will tell
                    descriptor = self._descriptor(int(self._index.shard_of[sample_id]))
                    os.posix_fadvise(descriptor, *place, os.POSIX_FADV_WILLNEED)

    def read(self, sample_id: int) -> bytes | None:
        self._expected.discard(sample_id)
        index, shard = self._index, int(self._index.shard_of[sample_id])
        path = f"{index.place}/{index.shards[shard].name}"
        offset, length = int(index.offset[sample_id]), int(index.length[sample_id])
        try:
            data = os.pread(self._descriptor(shard), length, offset)
        except OSError as error:
            raise RunFailure(f"shard {path} cannot be read ({error.strerror}): {_mend(index)}") from error
        if len(data) < length:
            raise RunFailure(
                f"shard {path} ends before byte {offset + length}, where its index goes on: {_mend(index)}"
            )
        return data if zlib.crc32(data) == int(index.crc32[sample_id]) else None

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def _descriptor(self, shard: int) -> int:
        if shard in self._descriptors:
            self._descriptors.move_to_end(shard)
        else:
            if len(self._descriptors) >= OPEN_SHARDS:
                os.close(self._descriptors.popitem(last=False)[1])
            self._descriptors[shard] = os.open(f"{self._index.place}/{self._index.shards[shard].name}", os.O_RDONLY)
        return self._descriptors[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {"_index": self._index, "_descriptors": OrderedDict(), "_expected": set()}

    def __del__(self) -> None:
        self.close()


def _mend(index: DatasetIndex) -> str:
    return f"`python -m shards verify {index.place}` lists what is damaged; copy or build those shards again"
