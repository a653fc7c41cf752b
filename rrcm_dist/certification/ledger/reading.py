"""Reading a ledger of any kind, also while it is being written: what all kinds have. Knows nothing of torch."""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rrcm_dist.certification.ledger.file import LedgerKind, connect, read_facts, spoken_errors


@dataclass(frozen=True)
class FailedImage:
    """An image that was given up at one level."""

    image: int
    """Sample id: its position in the dataset."""
    key: str
    label: int
    reason: str


class OpenLedger:
    """A ledger as it stood when opened; a context manager. What is written afterwards is not seen.

    Raises `InvalidInput` where there is none or it is of another kind, and `RunFailure` for a damaged file or one of
    another schema.
    """

    name: str
    """The run's name."""
    progress: dict
    """Where the writing process last said that it stood, a snapshot by name; empty before it did."""

    def __init__(self, path: str | Path, kind: LedgerKind) -> None:
        self.path = Path(path)
        self._kind = kind
        self._connection = connect(self.path, write=False, kind=kind)
        with spoken_errors(self.path):
            self._connection.execute("BEGIN")
        self._facts: dict[str, Any] = read_facts(self._connection, self.path)
        self.name, self.progress = self._facts["name"], self._facts.get("progress", {})

    def images(self) -> int:
        """Images that were asked for at any level."""
        with spoken_errors(self.path):
            return int(self._connection.execute("SELECT count(*) FROM images").fetchone()[0])

    def failures(self, level: float) -> list[FailedImage]:
        """The images given up at `level`, by sample id."""
        column, table = self._kind.level, self._kind.levels
        query = (
            "SELECT images.id, key, label, reason FROM failures JOIN images ON images.id = failures.image "
            f"WHERE {column} = (SELECT id FROM {table} WHERE {table}.{column} = ?) ORDER BY images.id"
        )
        with spoken_errors(self.path):
            return [FailedImage(*row) for row in self._connection.execute(query, (level,))]

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
