"""The same pre-training on one rank, on two, and on two, one and two again: three loss curves on top of each other.

Real runs by `python -m cluster submit pretrain`, float32 on this machine's CPU; the third is stopped by SIGTERM after a
third and after two thirds of its steps, and goes on with another number of ranks from its checkpoint. Beside the
largest difference stands how far two plain runs may lie apart by rounding alone: that of one rank and two.

    python -m benchmarks elastic --shards data/cifar10-shards --steps 120
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import markdown_table, report

FIGURE = Path(__file__).parent / "figures" / "elastic.png"
NETWORK = ("encoder.width=128", "encoder.depth=4", "encoder.heads=4", "projector.hidden=256")
RUNS = {"1 rank": (1,), "2 ranks": (2,), "2 → 1 → 2 ranks": (2, 1, 2)}
Losses = dict[int, float]


def main() -> None:
    """Train all of them, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, required=True, help="folder of CIFAR-10 shards, with train/ in it")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = {name: _train(Path(scratch) / name.replace(" ", ""), lives, arguments) for name, lives in RUNS.items()}
    curves = {name: losses for name, (losses, _) in found.items()}
    _draw(curves, arguments.figure)
    first = curves["1 rank"]
    rows = [
        {
            "run": name,
            "changes after step": ", ".join(map(str, changes)) or "–",
            "loss, first step": f"{losses[1]:.4f}",
            f"loss, step {arguments.steps}": f"{losses[arguments.steps]:.4f}",
            "largest difference from 1 rank": f"{max(abs(losses[step] / first[step] - 1) for step in first):.1e}",
        }
        for name, (losses, changes) in found.items()
    ]
    title = f"CIFAR-10 pre-training that changes its ranks, {arguments.steps} steps of {arguments.batch}, float32"
    report("elastic", title, markdown_table(rows) + f"\n\n![losses](figures/{arguments.figure.name})", arguments.record)


def _train(run: Path, lives: tuple[int, ...], arguments: argparse.Namespace) -> tuple[Losses, list[int]]:
    """Loss by step of a run whose lives are shared evenly among numbers of ranks, and the steps where it changed."""
    changes = []
    for life, ranks in enumerate(lives, start=1):
        process = subprocess.Popen(_command(run, ranks, arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        last = life == len(lives)
        while not last and process.poll() is None and len(_losses(run)) < arguments.steps * life // len(lives):
            time.sleep(0.05)
        if not last:
            process.send_signal(signal.SIGTERM)
        _, told = process.communicate()
        if process.returncode != (0 if last else 130):
            sys.exit(f"the run on {ranks} ranks ended with {process.returncode}:\n{told.decode()}")
        changes += [] if last else [max(_losses(run))]
    return _losses(run), changes


def _command(run: Path, ranks: int, arguments: argparse.Namespace) -> list[str]:
    settings = {
        "output": run,
        "data.train": arguments.shards / "train",
        "data.held_out": "null",
        "data.streams": 8,
        "data.workers": 0,
        "training.steps": arguments.steps,
        "training.batch": arguments.batch,
        "training.micro_batch": arguments.batch // 4,
        "training.precision": "fp32",
        "training.checkpoint_every": arguments.steps,
        "training.log_every": 1,
        "optimizer.warmup": arguments.steps // 10,
        "optimizer.lr": 5e-4,
    }
    words = [*NETWORK, *(f"{key}={value}" for key, value in settings.items())]
    options = ["--ranks", str(ranks), "--threads", "1", "--device", "cpu"]
    return [sys.executable, "-m", "cluster", "submit", "pretrain", "cifar10/pretrain-b", *words, *options]


def _losses(run: Path) -> Losses:
    file = run / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def _draw(curves: dict[str, Losses], figure: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    page, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(7, 5), height_ratios=(2, 1), layout="constrained")
    first = curves["1 rank"]
    for (name, losses), style in zip(curves.items(), ("-", "--", ":"), strict=True):
        above.plot(list(losses), list(losses.values()), style, label=name, linewidth=2)
        if name != "1 rank":
            below.plot(list(first), [abs(losses[step] / first[step] - 1) for step in first], style, label=name)
    above.set_ylabel("loss")
    above.legend()
    below.set(xlabel="step", ylabel="relative difference\nfrom 1 rank", yscale="log")
    below.legend()
    figure.parent.mkdir(exist_ok=True)
    page.savefig(figure, dpi=120)


if __name__ == "__main__":
    main()
