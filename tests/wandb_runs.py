"""Reads back what was told to Weights & Biases offline."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FILE_HEADER, FRAGMENT_HEADER, BLOCK = 7, struct.Struct("<IHB"), 2**15
"""Of W&B's files, which are in LevelDB's log format: records in fragments, none across the end of a block."""
WHOLE, LAST = 1, 4
"""Kinds of fragment that end a record."""


def records(run: Path) -> list[Any]:
    """Every record of the offline runs in a run folder, all of them finished, one start after the other."""
    files = sorted((run / "wandb").glob("offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns)
    return [record for file in files for record in finished_records(file)]


def finished_records(file: Path) -> list[Any]:
    """The records of one run; the process that writes them may end a moment after the run's `finish` returned."""
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [pb.Record.FromString(record) for record in whole_records(file.read_bytes())]
        if found and found[-1].WhichOneof("record_type") == "exit":
            return found
        time.sleep(0.05)
    raise TimeoutError(f"{file} does not end as a finished run does")


def whole_records(content: bytes) -> Iterator[bytes]:
    """The records that are there to their end."""
    position, record = FILE_HEADER, b""
    while position + FRAGMENT_HEADER.size <= len(content):
        if BLOCK - position % BLOCK < FRAGMENT_HEADER.size:  # too short for a header: zeros
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = FRAGMENT_HEADER.unpack_from(content, position)
        position += FRAGMENT_HEADER.size
        record += content[position : position + length]
        position += length
        if kind in (WHOLE, LAST) and position <= len(content):
            yield record
            record = b""


def told(run: Path) -> list[dict[str, Any]]:
    """Everything that was logged to Weights & Biases from a run folder, one start after the other."""
    history = [record.history for record in records(run) if record.WhichOneof("record_type") == "history"]
    lines = [{(item.key or item.nested_key[0]): item.value_json for item in line.item} for line in history]
    return [{name: json.loads(text) for name, text in line.items() if not name.startswith("_")} for line in lines]
