"""The status of a certification among Ray's logs: the dashboard shows it under Logs, this node, certification-….log."""

import logging
import time
from pathlib import Path
from typing import Any

from rrcm_dist.certification.status import describe_status, read_status
from rrcm_dist.certification.watching.snapshot import Snapshot

SECONDS_BETWEEN_TABLES = 10.0

_log = logging.getLogger(__name__)


class RayLog:
    """A watcher (`snapshot.Watcher`) that adds the table of `rrcm certify --status` to a file in Ray's log folder.

    To be made in a process that is connected to Ray, on a node of it. Where the file cannot be written, that is said
    once and the run goes on.
    """

    def __init__(self, run: str, ledger: Path) -> None:
        from ray._private import worker

        node: Any = worker._global_node
        folder = Path(node.get_logs_dir_path())
        name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in run)
        self._file, self._ledger = folder / f"certification-{name}.log", ledger
        self._written = -SECONDS_BETWEEN_TABLES
        self._broken = False

    def update(self, snapshot: Snapshot) -> None:
        """Add a table, unless the last one is recent and work is left."""
        if self._broken or (snapshot.draws_left and snapshot.seconds - self._written < SECONDS_BETWEEN_TABLES):
            return
        self._written = snapshot.seconds
        try:
            table = describe_status(read_status(self._ledger))
            with open(self._file, "a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%F %T')}  {table}\n\n")
        except Exception as error:  # whatever goes wrong here is no reason to lose draws
            self._broken = True
            _log.warning("no status among Ray's logs: %s", error)

    def close(self) -> None:
        """The file stays with Ray's logs."""
