"""Why ranks ended badly, as far as they or their disk say."""

import shutil
from pathlib import Path

FULL_BYTES = 1 << 20
ERROR = "error: "
"""What the door of every command begins its last words with."""
ELSEWHERE = "lost another rank"
"""In the words of a rank that ends because another one did."""


def why_ranks_ended(logs: Path) -> str:
    """A full disk; or what the first rank that says why says; '' where nothing tells.

    logs: folder of the logs of one life.
    """
    if shutil.disk_usage(logs).free < FULL_BYTES:
        return f"the disk of {logs} is full: make room"
    for log in sorted(logs.glob("*.log")):
        for line in reversed(log.read_text(errors="replace").splitlines()):
            if line.startswith(ERROR) and ELSEWHERE not in line:
                return line.removeprefix(ERROR)
    return ""
