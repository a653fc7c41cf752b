"""From submit to the first step, part by part; seconds lost per restart; checkpoints' share of a run's time.

The first two on the test cluster of tests/slurm (as root; Debian's slurm-wlm, munge, slurmdbd, mariadb-server), with a
tiny run of two ranks; the third in this process, with the network of a recipe of the paper on scikit-learn's digits:
a step of a small batch and a checkpoint are measured, a step of the whole batch is reckoned.

    python -m benchmarks cluster_timings --record
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from benchmarks.cluster_watch import Watch, test_cluster
from benchmarks.machine import markdown_table, report

from events import AT_STEP, EVENTS  # isort: skip  # of tests/slurm, which cluster_watch finds
from slurm_cluster import SlurmCluster  # isort: skip
from tiny import build_digits  # isort: skip
from tiny_runs import TinyRun  # isort: skip

from rrcm_dist.cli.training import run_training
from rrcm_dist.config.estimate import checkpoint_bytes, step_flops
from rrcm_dist.config.gpus import GPUS, Machine
from rrcm_dist.config.load import load_recipe
from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.training import loop

RECIPE, BATCH, STEPS = "cifar10/pretrain-b", 8, 2
RESTARTS = ("USR2 to the batch step", "scontrol requeue")


def main() -> None:
    """Measure all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind; medians are told [default: 3]")
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = build_digits(folder / "digits")
        with test_cluster() as slurm:
            starts = [_start(slurm, folder / f"start-{i}", shards) for i in range(arguments.rounds)]
            losses = [_restarts(slurm, folder / f"restart-{i}", shards) for i in range(arguments.rounds)]
        text = f"{_start_table(starts)}\n\n{_loss_table(losses)}\n\n{_checkpoints(folder)}"
    text += (
        f"\n\nMedians of {arguments.rounds}; {os.getloadavg()[2]:.1f} processes wanted one of {os.cpu_count()} cores "
    )
    text += "on average over the last quarter of an hour."
    report("cluster_timings", "On a real Slurm: submit to first step, restarts, checkpoints", text, arguments.record)


def _start(slurm: SlurmCluster, folder: Path, shards: Path) -> dict[str, float]:
    """Seconds of each part, from the submit command to the first step told."""
    slurm.tidy()
    run = TinyRun(slurm, folder, shards)
    with Watch(run) as watch:
        moments = [time.time()]
        run.submit()
        moments.append(time.time())
        run.wait_for_step(AT_STEP)
        moments.append(_started(run.supervisor_process()))
        moments.append(run.lives()[0].started.timestamp())
        moments.append(_started(run.rank_process(0)))
        moments.append((run.output / "environment.json").stat().st_mtime)
        moments.append(watch.steps[0][0])
        run.call("cancel", "run")
    names = ["submit command", "queue", "supervisor", "preparing, srun", "rank: imports, set-up", "first step"]
    parts = {name: after - before for name, (before, after) in zip(names, pairwise(moments), strict=True)}
    return {**parts, "of these, imports (alone)": _imports(), "in all": moments[-1] - moments[0]}


def _started(process: int) -> float:
    """When a process began, in seconds since 1970."""
    ticks = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    now, up = time.time(), float(Path("/proc/uptime").read_text().split()[0])
    return now - up + ticks / os.sysconf("SC_CLK_TCK")


def _imports() -> float:
    """Seconds in which one process alone imports what a rank needs, torch and DeepSpeed above all."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import rrcm_dist.training.pretraining, deepspeed"], capture_output=True)
    return time.perf_counter() - start


def _start_table(starts: list[dict[str, float]]) -> str:
    return markdown_table(
        [{"from submit to first step": name, "s": f"{_middle(starts, name):.1f}"} for name in starts[0]]
    )


def _restarts(slurm: SlurmCluster, folder: Path, shards: Path) -> dict[str, float]:
    """Seconds lost by name of the event."""
    lost = {}
    for number, event in enumerate(event for event in EVENTS if event.name in RESTARTS):
        slurm.tidy()
        run = TinyRun(slurm, folder.with_name(f"{folder.name}-{number}"), shards)
        with Watch(run) as watch:
            run.submit(overrides=event.overrides)
            run.wait_for_step(AT_STEP)
            event.strike(run)
            assert run.wait_for_end() == "COMPLETED", run.tails()
        lost[event.name] = watch.loss().seconds
    return lost


def _loss_table(losses: list[dict[str, float]]) -> str:
    head = "restart (Slurm's hold of two minutes apart)"
    return markdown_table([{head: name, "seconds lost": f"{_middle(losses, name):.1f}"} for name in losses[0]])


def _middle(rounds: list[dict[str, float]], name: str) -> float:
    return median(one[name] for one in rounds)


def _checkpoints(folder: Path) -> str:
    """What share of a run's time its checkpoints take: measured here at a small batch, reckoned for the whole one."""
    saves, steps = _train_large(folder)
    recipe = load_recipe(RECIPE, kind="pretrain")
    assert isinstance(recipe, PretrainConfig)
    interval, batch = recipe.training.checkpoint_every, recipe.training.batch
    save, step = median(saves), median(steps)
    a800 = Machine(8, GPUS["A800"]).seconds(step_flops(recipe), recipe.training.precision)
    rows = [
        {
            "step of": f"{count} images, {what}",
            "s": f"{seconds:.3g}",
            "share of checkpoints": _percent(save, interval, seconds),
        }
        for count, what, seconds in (
            (BATCH, "here, fp32, measured", step),
            (batch, "the same, reckoned in proportion", step * batch / BATCH),
            (batch, "8 A800, estimate of `rrcm pretrain --dry-run`", a800),
        )
    ]
    return (
        f"Checkpoints of {RECIPE}, one every {interval} steps, {checkpoint_bytes(recipe) / 1e6:,.0f} MB: "
        f"{save:.1f} s each on this disk, one rank, measured ({len(saves)} of them).\n\n{markdown_table(rows)}"
    )


def _percent(save: float, interval: int, step: float) -> str:
    return f"{save / (interval * step):.2%}"


def _train_large(folder: Path) -> tuple[list[float], list[float]]:
    """Seconds of every checkpoint, and of every step between two of which none was kept."""
    for split in ("train", "held-out"):
        command = [sys.executable, "-m", "shards", "build", "digits", str(folder / "large" / split), "--split", split]
        subprocess.run([*command, "--size", "32"], check=True, capture_output=True)
    settings = [f"data.train={folder}/large/train", "data.held_out=null", f"output={folder}/run", "data.workers=0"]
    settings += [f"data.streams={BATCH}", f"training.batch={BATCH}", f"training.micro_batch={BATCH}"]
    settings += [f"training.steps={STEPS}", "training.checkpoint_every=2", "training.precision=fp32"]
    settings += [f"data.shuffle_window={BATCH}", "optimizer.warmup=1"]
    saves, updates = list[float](), list[float]()
    with (
        mock.patch.object(loop, "_save", _timed(loop._save, saves)),
        mock.patch.object(loop, "_update", _noted(loop._update, updates)),
    ):
        run_training(load_recipe(RECIPE, settings, kind="pretrain"), "cpu", "auto")  # type: ignore[arg-type]
    return saves, [after - before for before, after in zip(updates[::2], updates[1::2], strict=True)]


def _timed(call: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Any:
        start = time.perf_counter()
        result = call(*arguments)
        seconds.append(time.perf_counter() - start)
        return result

    return timed


def _noted(call: Callable[..., Any], moments: list[float]) -> Callable[..., Any]:
    def noted(*arguments: Any) -> Any:
        result = call(*arguments)
        moments.append(time.perf_counter())
        return result

    return noted
