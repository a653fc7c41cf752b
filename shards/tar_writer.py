"""One shard: a WebDataset tar written byte for byte the same each time, with the rows of the index on the side."""

import hashlib
import tarfile
import zlib
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = tarfile.BLOCKSIZE
"""A tar is made of blocks of 512 bytes: a header, content padded to whole blocks, and two empty blocks at the end."""
END = bytes(2 * BLOCK)


@dataclass(frozen=True, slots=True)
class Row:
    """A sample as the index has it."""

    key: str
    label: int
    offset: int
    length: int
    crc32: int


def header(name: str, length: int) -> bytes:
    """The ustar header of a member: no time, owner or mode of this machine in it."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = length, 0o644, 0
    return member.tobuf(format=tarfile.USTAR_FORMAT, encoding="ascii", errors="strict")


def padding(length: int) -> bytes:
    """What follows content of `length` bytes, up to the next block."""
    return bytes(-length % BLOCK)


def label_member(key: str, label: int) -> bytes:
    """The whole member KEY.cls: header, label in decimal, padding."""
    text = str(label).encode("ascii")
    return header(f"{key}.cls", len(text)) + text + padding(len(text))


def sample_bytes(image_bytes: int) -> int:
    """Bytes that a sample takes in a shard."""
    return BLOCK + image_bytes + len(padding(image_bytes)) + 2 * BLOCK


class TarWriter:
    """Writes samples to an open file, and keeps its SHA-256 and the rows of the index as it goes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.bytes = 0
        self.rows: list[Row] = []

    def add(self, key: str, label: int, image: bytes, extension: str) -> None:
        """Write one sample: KEY.EXTENSION and KEY.cls."""
        self._write(header(f"{key}.{extension}", len(image)))
        self.rows.append(Row(key, label, self.bytes, len(image), zlib.crc32(image)))
        self._write(image + padding(len(image)) + label_member(key, label))

    def finish(self) -> str:
        """Write the end of the tar; returns the SHA-256 of the whole."""
        self._write(END)
        return self._digest.hexdigest()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.bytes += len(data)
