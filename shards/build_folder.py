"""The folder of a build under way: what it may be built over, what is finished, and going on after any kind of end.

    OUT/shard-000000.tar …               finished shards, each there whole or not at all
    OUT/.building/plan.json              what is being built: options and the fingerprint of the source
    OUT/.building/shard-000000.json …    rows, checksum and quarantined images of each finished shard
    OUT/.building/lock                   held by the build that is running

At the end the rows become OUT/samples.npz and OUT/index.json, and .building goes.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rrcm_dist.data.index import INDEX_FILE, SAMPLES_FILE, UNFINISHED_FOLDER, Shard
from rrcm_dist.errors import InvalidInput
from rrcm_dist.files import PARTIAL, write_json
from shards.tar_writer import Row

QUARANTINE_FILE = "quarantine.tsv"
PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class FinishedShard:
    """What is known of a shard once it is whole. A shard whose images were all unreadable has no tar and no bytes."""

    shard: Shard
    rows: tuple[Row, ...]
    formats: Mapping[str, int]
    """Images by extension."""
    quarantined: tuple[tuple[str, str], ...]
    """Path and reason."""


def check_target(out: Path, force: bool, source: Path | None = None) -> None:
    """Raise `InvalidInput` unless a dataset may be built at `out`: nothing there, an unfinished build, or `force`."""
    if out.exists() and not out.is_dir():
        raise InvalidInput(f"{out} is a file: name a folder to build the dataset in")
    if source is not None and out.resolve().is_relative_to(source.resolve()):
        raise InvalidInput(f"{out} lies within the source {source}: name a folder outside of it")
    if (out / INDEX_FILE).exists() and not force:
        raise InvalidInput(f"{out} holds a finished dataset: name another folder, or add --force to build it anew")
    if out.is_dir() and not _is_ours(out):
        raise InvalidInput(f"{out} is not empty and holds no dataset: name another folder (nothing in it was touched)")


def _is_ours(out: Path) -> bool:
    return (out / INDEX_FILE).exists() or (out / UNFINISHED_FOLDER).exists() or not any(out.iterdir())


@contextmanager
def opened(out: Path) -> Iterator["BuildFolder"]:
    """The build folder at `out`, made if need be, and locked while in use.

    Raises `InvalidInput` where another build is at work there.
    """
    working = out / UNFINISHED_FOLDER
    try:
        working.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(working / "lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise InvalidInput(f"{out} cannot be written to: {error.strerror}: name another folder") from error
    try:
        # The lock goes with the process that holds it, so that a killed build leaves none.
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidInput(f"another build is at work in {out}: wait for it, or name another folder") from error
        for path in out.glob(f".*{PARTIAL}"):
            path.unlink()
        yield BuildFolder(out, working)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class BuildFolder:
    """An opened build."""

    out: Path
    working: Path

    def bytes(self) -> int:
        """Bytes of the shards that are there."""
        return sum(path.stat().st_size for path in self.out.glob("shard-*.tar"))

    def goes_on(self, plan: Mapping[str, Any], force: bool) -> bool:
        """Whether an unfinished build of `plan` is here; what else is here may be removed.

        Raises `InvalidInput` where shards of another plan are finished and `force` is not given.
        """
        path = self.working / PLAN_FILE
        earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if earlier == plan and not (self.out / INDEX_FILE).exists():
            return True
        if force or not any(self.working.glob("shard-*.json")):
            return False
        changed = [key for key in sorted({*plan, *earlier} - {"fingerprint"}) if plan.get(key) != earlier.get(key)]
        what = ", ".join(f"{key} was {earlier.get(key)}, is now {plan.get(key)}" for key in changed)
        raise InvalidInput(
            f"{self.out} holds an unfinished build of something else "
            f"({what or 'the images of the source have changed'}): run it as before to go on, name another folder, "
            "or add --force to begin anew"
        )

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Remove the dataset or unfinished build that is here, and note what is being built."""
        # The index goes first: from here on the folder is not a dataset.
        for name in (INDEX_FILE, SAMPLES_FILE, QUARANTINE_FILE):
            (self.out / name).unlink(missing_ok=True)
        for path in [*self.out.glob("shard-*.tar"), *self.working.glob("*.json")]:
            path.unlink()
        write_json(self.working / PLAN_FILE, plan)

    def finished(self, name: str) -> FinishedShard | None:
        """What is known of the shard, or None where it is still to be written."""
        path = self.working / f"{name}.json"
        if not path.exists():
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
        shard = Shard(**record["shard"])
        tar = self.out / shard.name
        if shard.samples and not (tar.exists() and tar.stat().st_size == shard.bytes):
            return None
        return FinishedShard(
            shard,
            tuple(Row(*row) for row in record["rows"]),
            record["formats"],
            tuple((path, reason) for path, reason in record["quarantined"]),
        )

    def close(self) -> None:
        """Remove what only a build needs; the index is written."""
        shutil.rmtree(self.working)


def record(working: Path, done: FinishedShard) -> None:
    """Write down a finished shard. Called after its tar is in place."""
    value = {
        "shard": asdict(done.shard),
        "formats": dict(done.formats),
        "quarantined": [list(item) for item in done.quarantined],
        "rows": [[row.key, row.label, row.offset, row.length, row.crc32] for row in done.rows],
    }
    write_json(working / f"{Path(done.shard.name).stem}.json", value)
