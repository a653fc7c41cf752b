"""A single command that is done once what it reads has gone through it."""

import hashlib
import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.jobs.inputs import check_paths
from rrcm_dist.files import write_json

DONE = "done.json"


@dataclass(frozen=True)
class SingleJob:
    """A command of one process, such as a check of shards or a report."""

    kind: str
    """What it does, in a word."""
    name: str
    folder: Path
    """Its run folder."""
    words: tuple[str, ...]
    """The command: what follows `python`, whichever this process's is."""
    inputs: tuple[Path, ...]
    """Files that it reads; changed, they are to go through it again."""

    def recipe_text(self) -> str:
        """What it is, for people."""
        return json.dumps({"kind": self.kind, "command": self.words}, indent=1, ensure_ascii=False) + "\n"

    def command(self, device: str, recipe: Path | None = None) -> list[str]:
        """The command; it knows no device and no recipe."""
        return [sys.executable, *self.words]

    def check_inputs(self, waits: bool) -> None:
        """Raise `InvalidInput` for files that are not there."""
        check_paths({} if waits else {f"input {n} of {self.kind}": str(path) for n, path in enumerate(self.inputs, 1)})

    def is_finished(self) -> bool:
        """Whether the command, and no other, has gone through with its inputs as they are."""
        with suppress(OSError, ValueError):
            return bool(json.loads((self.folder / DONE).read_text()) == self._mark())
        return False

    def set_finished(self) -> None:
        """The command has ended well."""
        write_json(self.folder / DONE, self._mark())

    def _mark(self) -> dict[str, str]:
        words = hashlib.sha256("\0".join(self.words).encode()).hexdigest()
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in self.inputs if path.exists()]
        return {"command": words, "inputs": hashlib.sha256(repr(stats).encode()).hexdigest()}
