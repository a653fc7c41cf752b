"""What every result must carry: date, commit, hardware, versions, command."""

import platform
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "RESULTS.md"


def heading() -> str:
    """One line: date, commit, processor, device, torch."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    return f"{date.today()}, commit {commit()}, {processor()}, {device}, torch {torch.__version__}"


def commit() -> str:
    """Short hash of the source tree, with '+changes' where it was edited."""
    here = Path(__file__).parent
    asked = {"cwd": here, "capture_output": True, "text": True, "check": False}
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], **asked).stdout.strip()
    changed = subprocess.run(["git", "status", "--porcelain", "-uno"], **asked).stdout.strip()
    return (found or "unknown") + ("+changes" if changed else "")


def processor() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def report(name: str, title: str, table: str, record: bool) -> None:
    """Print a result of the benchmark `name` and, where asked, put it at the end of RESULTS.md."""
    words = [name, *(word for word in sys.argv[1:] if word != "--record")]
    command = "python -m benchmarks " + shlex.join(words)
    entry = f"\n## {title}\n\n{heading()}\n\n    {command}\n\n{table}\n"
    print(entry)
    if record:
        with open(RESULTS, "a", encoding="utf-8") as file:
            file.write(entry)


def markdown_table(rows: list[dict[str, str]]) -> str:
    """Rows with the same keys as a Markdown table."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(row[column] for column in columns) + " |" for row in rows]
    return "\n".join(lines)
