"""Bytes of single samples out of the shards, by ranged reads at the offsets of the index."""

import os
import zlib
from collections import OrderedDict
from typing import Any

from rrcm_dist.data.decoding import DecodeError
from rrcm_dist.data.index import DatasetIndex
from rrcm_dist.errors import RunFailure

OPEN_SHARDS = 64
"""Shards kept open per process; the least recently read one is closed first."""


class SampleReader:
    """Reads samples by id. May be handed to other processes: each opens the shards for itself."""

    def __init__(self, index: DatasetIndex) -> None:
        self._index = index
        self._descriptors: OrderedDict[int, int] = OrderedDict()

    def read(self, sample_id: int) -> bytes:
        """The image's bytes as they were put in.

        Raises `RunFailure` where the shard is missing or shorter than its index says, and `DecodeError` where the bytes
        are not those that the index was made from.
        """
        index, shard = self._index, int(self._index.shard_of[sample_id])
        path = index.folder / index.shards[shard].name
        offset, length = int(index.offset[sample_id]), int(index.length[sample_id])
        try:
            data = os.pread(self._descriptor(shard), length, offset)
        except OSError as error:
            raise RunFailure(f"shard {path} cannot be read ({error.strerror}): {_mend(index)}") from error
        if len(data) < length:
            raise RunFailure(
                f"shard {path} ends before byte {offset + length}, where its index goes on: {_mend(index)}"
            )
        if zlib.crc32(data) != int(index.crc32[sample_id]):
            raise DecodeError(f"checksum differs from the index ({path}, byte {offset})")
        return data

    def close(self) -> None:
        """Close the shards; reading opens them again."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def _descriptor(self, shard: int) -> int:
        if shard in self._descriptors:
            self._descriptors.move_to_end(shard)
        else:
            if len(self._descriptors) >= OPEN_SHARDS:
                os.close(self._descriptors.popitem(last=False)[1])
            self._descriptors[shard] = os.open(self._index.folder / self._index.shards[shard].name, os.O_RDONLY)
        return self._descriptors[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {"_index": self._index, "_descriptors": OrderedDict()}

    def __del__(self) -> None:
        self.close()


def _mend(index: DatasetIndex) -> str:
    return f"`python -m shards verify {index.folder}` lists what is damaged; copy or build those shards again"
