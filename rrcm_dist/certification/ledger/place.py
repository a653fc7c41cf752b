"""Where a run keeps its ledger."""

from pathlib import Path

LEDGER_FILE = "ledger.sqlite"
"""Name of the ledger in a run's output folder."""


def ledger_at(path: str | Path) -> Path:
    """The ledger that `path` names: itself, or where it is a folder, the run's in it."""
    return Path(path) / LEDGER_FILE if Path(path).is_dir() else Path(path)
