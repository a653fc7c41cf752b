"""The digits as shards for benchmarks that run whole commands."""

import subprocess
import sys
from pathlib import Path


def digits_shards(folder: Path, size: int) -> Path:
    """`folder` with train/ and held-out/ at `size` pixels, built where they are not there."""
    for split in ("train", "held-out"):
        if not (folder / split / "index.json").exists():
            run_here("-m", "shards", "build", "digits", str(folder / split), "--split", split, "--size", str(size))
    return folder


def run_here(*words: str) -> None:
    """Run this Python with `words`; where that fails, end with what it said."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        told = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
        sys.exit(f"{' '.join(words)} ended with exit code {done.returncode}:\n{told}")
