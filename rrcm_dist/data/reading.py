"""Images of single samples out of the shards, by ranged reads at the offsets of the index, each one checked."""

from collections.abc import Iterable

from rrcm_dist.data.checked_reading import checked_reader
from rrcm_dist.data.decoding import DecodeError
from rrcm_dist.data.index import DatasetIndex


class SampleReader:
    """Reads samples by id. May be handed to other processes: each opens the shards for itself."""

    def __init__(self, index: DatasetIndex) -> None:
        self._index = index
        self._source = checked_reader(index)

    def expect(self, sample_ids: Iterable[int]) -> None:
        """Say which samples will be read next, in this order: they are read ahead, as far as fits."""
        self._source.expect(sample_ids)

    def read(self, sample_id: int) -> bytes:
        """The image's bytes as they were put in.

        Raises `RunFailure` where the shard is missing or shorter than its index says or a store fails for long, and
        `DecodeError` where the bytes are not those that the index was made from.
        """
        data = self._source.read(sample_id)
        if data is None:
            shard = self._index.shards[self._index.shard_of[sample_id]].name
            where = f"{self._index.place}/{shard}, byte {self._index.offset[sample_id]}"
            raise DecodeError(f"checksum differs from the index ({where})")
        return data

    def close(self) -> None:
        """Close the shards; reading opens them again."""
        self._source.close()
