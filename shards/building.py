"""A source becomes shards: dealt, written in parallel, indexed. Ended anywhere, it goes on from the finished shards."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rrcm_dist.data.index import COLUMNS, Shard, write_index
from rrcm_dist.errors import RunFailure
from rrcm_dist.files import require_free_space, whole_file, write_text
from rrcm_dist.progress import progress_bar
from shards.build_folder import QUARANTINE_FILE, FinishedShard, opened, record
from shards.images import Resize, UnreadableImageError, encoded
from shards.source import Entry, Source, shuffled
from shards.tar_writer import TarWriter, sample_bytes
from shards.workers import each

BYTES_PER_PIXEL = 1.0
"""Of a JPEG of the highest quality, from above; for the estimate of the space needed."""
INDEX_BYTES_PER_SAMPLE = 400
"""From above: a row in .building and in samples.npz."""


@dataclass(frozen=True)
class Options:
    """How a source is laid out in shards."""

    order: str
    """"shuffled", so that every shard holds all classes, or "sorted": the source's own order."""
    seed: int
    samples_per_shard: int
    resize: Resize | None

    def described(self) -> dict[str, Any]:
        """For the plan and the index."""
        shrunk = {"resize": self.resize.short_side, "quality": self.resize.quality} if self.resize else {}
        seed = {"seed": self.seed} if self.order == "shuffled" else {}
        return {"order": self.order, **seed, "samples_per_shard": self.samples_per_shard, **shrunk}


@dataclass(frozen=True)
class Built:
    """What came of a build."""

    samples: int
    shards: int
    kept_shards: int
    """Of them, finished by an earlier run."""
    bytes: int
    quarantined: int


@dataclass(frozen=True)
class ShardTask:
    """One shard to write; goes to a worker process."""

    out: Path
    working: Path
    name: str
    entries: Sequence[Entry]
    resize: Resize | None


def build(
    source: Source, out: Path, options: Options, about: Mapping[str, Any], jobs: int, force: bool = False
) -> Built:
    """Write `source` as a dataset at `out` (see `check_target`). `about` says what it is made from.

    Raises `RunFailure` where the disk is too small, a class has no readable image, or a worker was killed; what is
    finished is kept.
    """
    made = {**about, **options.described()}
    entries = shuffled(source.entries, options.seed) if options.order == "shuffled" else list(source.entries)
    parts = {f"shard-{n:06d}": part for n, part in enumerate(_dealt(entries, options.samples_per_shard))}
    with opened(out) as folder:
        plan = {**made, "fingerprint": source.fingerprint}
        if not folder.goes_on(plan, force):
            require_free_space(out, _needed_bytes(entries, options.resize) - folder.bytes(), "building the shards")
            folder.begin(plan)
        finished = {name: done for name in parts if (done := folder.finished(name)) is not None}
        missing = {name: part for name, part in parts.items() if name not in finished}
        missing_bytes = _needed_bytes([entry for part in missing.values() for entry in part], options.resize)
        require_free_space(out, missing_bytes, "building the shards")
        kept = len(finished)
        tasks = [ShardTask(out, folder.working, name, part, options.resize) for name, part in missing.items()]
        finished |= _write_shards(tasks, len(entries), jobs)
        in_order = [finished[name] for name in parts]
        _write_quarantine(out, in_order)
        _require_every_class(out, source.classes, in_order)
        _write_dataset(out, source.classes, in_order, made)
        folder.close()
    shards = [done.shard for done in in_order if done.rows]
    return Built(
        samples=sum(shard.samples for shard in shards),
        shards=len(shards),
        kept_shards=kept,
        bytes=sum(shard.bytes for shard in shards),
        quarantined=sum(len(done.quarantined) for done in in_order),
    )


def _dealt(entries: Sequence[Entry], samples_per_shard: int) -> list[Sequence[Entry]]:
    """Consecutive parts of at most `samples_per_shard`, of equal size but for one: no small remainder at the end."""
    count = -(-len(entries) // samples_per_shard)
    return [entries[part * len(entries) // count : (part + 1) * len(entries) // count] for part in range(count)]


def _needed_bytes(entries: Sequence[Entry], resize: Resize | None) -> int:
    """Bytes of disk that these entries take at most as samples, the index included."""
    largest = BYTES_PER_PIXEL * 2 * resize.short_side**2 if resize else float("inf")
    return sum(sample_bytes(int(min(entry.size_bytes, largest))) + INDEX_BYTES_PER_SAMPLE for entry in entries)


def _write_shards(tasks: Sequence[ShardTask], images: int, jobs: int) -> dict[str, FinishedShard]:
    to_write = sum(len(task.entries) for task in tasks)
    finished = {}
    with progress_bar("building", images, done=images - to_write, unit="images") as bar:
        for name, done in each(write_shard, tasks, min(jobs, max(1, len(tasks)))):
            finished[name] = done
            bar.advance(done.shard.samples + len(done.quarantined), note=f"{done.shard.name} done")
    return finished


def write_shard(task: ShardTask) -> tuple[str, FinishedShard]:
    """Write one shard and its record; both appear whole, the record last."""
    path = task.out / f"{task.name}.tar"
    formats: Counter[str] = Counter()
    quarantined = []
    with whole_file(path) as aside, open(aside, "wb") as file:
        writer = TarWriter(file)
        for entry in task.entries:
            try:
                data, extension = encoded(entry, task.resize)
            except UnreadableImageError as error:
                quarantined.append((entry.origin, str(error)))
                continue
            writer.add(entry.key, entry.label, data, extension)
            formats[extension] += 1
        digest = writer.finish()
    if not writer.rows:
        path.unlink()
    done = FinishedShard(
        Shard(path.name, writer.bytes, digest, len(writer.rows)), tuple(writer.rows), formats, tuple(quarantined)
    )
    record(task.working, done)
    return task.name, done


def _write_quarantine(out: Path, finished: Sequence[FinishedShard]) -> None:
    """quarantine.tsv, sorted by path; none where every image could be read."""
    lines = sorted(
        "\t".join(" ".join(field.split()) for field in item) for done in finished for item in done.quarantined
    )
    if lines:
        write_text(out / QUARANTINE_FILE, "\n".join(["path\treason", *lines]) + "\n")


def _require_every_class(out: Path, classes: Sequence[str], finished: Sequence[FinishedShard]) -> None:
    present = {row.label for done in finished for row in done.rows}
    absent = [name for label, name in enumerate(classes) if label not in present]
    if absent:
        shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        raise RunFailure(
            f"no image of the class {shown} can be read (see {out / QUARANTINE_FILE}): mend or remove it in the "
            "source, then build again with --force"
        )


def _write_dataset(
    out: Path, classes: Sequence[str], finished: Sequence[FinishedShard], made: Mapping[str, Any]
) -> None:
    rows = [row for done in finished for row in done.rows]
    columns = {name: np.array([getattr(row, name) for row in rows]) for name in (*COLUMNS, "key")}
    about = {
        "built": dict(made),
        "formats": dict(sorted(sum((Counter(done.formats) for done in finished), Counter()).items())),
        "quarantined": sum(len(done.quarantined) for done in finished),
    }
    write_index(out, classes, [done.shard for done in finished if done.rows], columns, about)
