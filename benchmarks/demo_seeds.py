"""The demo over several seeds: average certified radius of the pre-trained encoder beside the one from scratch.

Each seed is a whole run of `rrcm demo` (shards, pre-training, fine-tuning and certification at three σ for both
encoders), in a folder of its own, so that an interrupted benchmark goes on where it stopped.

    python -m benchmarks demo_seeds --seeds 0 1 2 --output runs/demo-seeds
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.machine import markdown_table, report


def main() -> None:
    """Run the demo for every seed and print both encoders' average certified radii."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("runs/demo-seeds"))
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    summaries = [_summary_of(seed, arguments.output / f"seed-{seed}") for seed in arguments.seeds]
    encoders = list(summaries[0]["encoders"])
    rows = [_row(sigma, encoders, summaries) for sigma in summaries[0]["encoders"][encoders[0]]]
    seconds = ", ".join(f"{summary['seconds']:.0f}" for summary in summaries)
    table = f"{markdown_table(rows)}\n\nSeconds of each whole demo: {seconds}."
    report("demo_seeds", f"Demo, seeds {', '.join(map(str, arguments.seeds))}", table, arguments.record)


def _summary_of(seed: int, output: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "rrcm_dist.cli.main", "demo", f"output={output}", f"seed={seed}"]
    if code := subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
        sys.exit(f"the demo of seed {seed} ended with exit code {code}")
    return json.loads((output / "summary.json").read_text())


def _row(sigma: str, encoders: list[str], summaries: list[dict[str, Any]]) -> dict[str, str]:
    radii = {name: [summary["encoders"][name][sigma]["acr"] for summary in summaries] for name in encoders}
    first, second = (radii[name] for name in encoders)
    return {
        "σ": sigma,
        **{f"ACR, {name}": f"{mean(values):.3f} ({_listed(values)})" for name, values in radii.items()},
        "smallest lead": f"{min(a - b for a, b in zip(first, second, strict=True)):+.3f}",
    }


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)
