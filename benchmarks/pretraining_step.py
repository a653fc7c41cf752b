"""One pre-training step of ours beside the released one (jiachenlei/rRCM): seconds and peak memory, as ratios.

The same network, batch, loss and machine, each implementation in a process of its own, taken in turn; on a CPU both in
fp32, on a GPU theirs in float16 with a gradient scaler and ours in `--precision`. Views are random pixels made
beforehand; with `--shards`, each has its own data path within the step, with as many workers.

    python -m benchmarks pretraining_step --micro-batch 16                       on a CPU, in some minutes
    python -m benchmarks pretraining_step --shards FOLDER --workers 1
    python -m benchmarks pretraining_step --recipe imagenet/pretrain-b --device cuda --batch 4096 --micro-batch 512 \
        --compile --released-batch 256
"""

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import time
from statistics import median
from typing import Any

from benchmarks.machine import markdown_table, report

CPU_NETWORK = ("encoder.image_size=32", "encoder.patch=4", "encoder.width=384", "encoder.depth=6", "encoder.heads=6")


def main() -> None:
    """Measure every implementation in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", help="recipe whose network is used [default: a small one for CPUs]")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes of the recipe")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--released-batch", type=int, help="batch of the released step, where it does not fit")
    parser.add_argument("--micro-batch", type=int, help="also measure ours with this micro-batch")
    parser.add_argument("--checkpointing", action="store_true", help="also measure ours with activation checkpointing")
    parser.add_argument("--compile", action="store_true", help="also measure both with compiled blocks")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="of ours [default: fp32 on cpu, bf16 on cuda]")
    parser.add_argument("--attention", default="auto", choices=("auto", "sdpa", "xformers"))
    parser.add_argument("--shards", help="folder of shards: measure data path and step together")
    parser.add_argument("--workers", type=int, default=1, help="of either data path [default: 1]")
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each")
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.precision = arguments.precision or ("fp32" if arguments.device == "cpu" else "bf16")
    if arguments.only:
        print(json.dumps(_measure(arguments, json.loads(arguments.only))))
    else:
        _compare(arguments)


def _settings(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What is measured, by name: which step, and settings of its recipe's `training`."""
    rows: dict[str, dict[str, Any]] = {"released": {"released": True}, "ours": {}}
    smaller = {}
    if arguments.micro_batch:
        smaller = {"micro_batch": arguments.micro_batch}
        rows[f"ours, micro-batch {arguments.micro_batch}"] = smaller
    if arguments.checkpointing:
        rows["ours, checkpointing"] = {"activation_checkpointing": True}
    if arguments.compile:
        rows["released, compiled"] = {"released": True, "compile": True}
        rows["ours, compiled"] = {"compile": True}
        if smaller:
            rows[f"ours, compiled, micro-batch {arguments.micro_batch}"] = {"compile": True, **smaller}
    if arguments.released_batch:  # the whole batch does not fit at once
        rows = {name: row for name, row in rows.items() if row.get("released") or len(row) > ("compile" in row)}
    return rows


def _compare(arguments: argparse.Namespace) -> None:
    settings = _settings(arguments)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in settings}
    for _ in range(arguments.rounds):
        for name, row in settings.items():
            measured[name].append(_in_own_process(name, row))
    best = {
        name: {key: min(result[key] for result in results) for key in ("seconds_per_image", "peak_bytes", "flops")}
        for name, results in measured.items()
    }
    peak_flops = measured["released"][0]["peak_flops"]
    with_data = f", with data ({arguments.workers} worker processes)" if arguments.shards else ""
    network = arguments.recipe or "small network"
    title = f"Pre-training step{with_data}, {network}, batch {arguments.batch}, {arguments.precision}"
    report("pretraining_step", title, markdown_table(_rows(best, peak_flops)), arguments.record)


def _rows(best: dict[str, dict[str, float]], peak_flops: float) -> list[dict[str, str]]:
    released, rows = best["released"], []
    for name, result in best.items():
        row = {
            "step": name,
            "ms/image": f"{1e3 * result['seconds_per_image']:.2f}",
            "images/s": f"{1 / result['seconds_per_image']:.1f}",
            "speed, released = 1": f"{released['seconds_per_image'] / result['seconds_per_image']:.2f}",
            "peak memory": f"{result['peak_bytes'] / 2**30:.2f} GiB",
            "memory, released = 1": f"{result['peak_bytes'] / released['peak_bytes']:.2f}",
        }
        if peak_flops:
            row["MFU"] = f"{result['flops'] / result['seconds_per_image'] / peak_flops:.1%}"
        rows.append(row)
    return rows


def _in_own_process(name: str, row: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks", "pretraining_step", *sys.argv[1:], "--only", json.dumps(row)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"the measurement of {name!r} failed (exit code {done.returncode})")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(arguments: argparse.Namespace, row: dict[str, Any]) -> dict[str, float]:
    """Median seconds of a step per image, peak bytes above what the process held before networks were built, FLOPs."""
    import torch

    from benchmarks.steps import our_step, released_step
    from rrcm_dist.config.estimate import step_flops
    from rrcm_dist.distributed.world import join_world
    from rrcm_dist.training.watching.utilisation import device_peak

    released = row.get("released", False)
    batch = arguments.released_batch if released and arguments.released_batch else arguments.batch
    recipe = _recipe(arguments, batch, row)
    with join_world(arguments.device) as world:
        _import_libraries(arguments.device)
        before, data = _peak_bytes(world.device), arguments.shards is not None
        if released:
            step = released_step(recipe, world, data, recipe.training.compile)
        else:
            step = our_step(recipe, world, data)
        step(0)
        seconds = []
        for k in range(1, arguments.steps + 1):
            _wait(world.device)
            start = time.perf_counter()
            step(k)
            _wait(world.device)
            seconds.append(time.perf_counter() - start)
        on_gpu = world.device.type == "cuda"
        peak_bytes = torch.cuda.max_memory_allocated() if on_gpu else _peak_bytes(world.device) - before
        return {
            "seconds_per_image": median(seconds) / batch,
            "peak_bytes": peak_bytes,
            "flops": step_flops(recipe) / batch,
            "peak_flops": device_peak(recipe.training, world.device).flops or 0.0 if on_gpu else 0.0,
        }


def _recipe(arguments: argparse.Namespace, batch: int, row: dict[str, Any]) -> Any:
    from rrcm_dist.config.load import load_recipe

    training = {name: value for name, value in row.items() if name != "released"}
    settings = [
        *(() if arguments.recipe else CPU_NETWORK),
        f"training.batch={batch}",
        f"training.precision={arguments.precision}",
        f"training.attention={arguments.attention}",
        "training.micro_batch=null",
        *(f"training.{name}={json.dumps(value)}" for name, value in training.items()),
        "data.streams=1",
        "knn.bank=20",
        "knn.queries=1",
        *([f"data.train={arguments.shards}", "data.held_out=null"] if arguments.shards else []),
        f"data.workers={arguments.workers}",
        *arguments.set,
    ]
    return load_recipe(arguments.recipe or "cifar10/pretrain-b", settings, kind="pretrain")


def _import_libraries(device: str) -> None:
    """What either would import later, so that its memory counts for none."""
    if device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    for name in ("deepspeed", "torch._dynamo"):
        importlib.import_module(name)


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def _peak_bytes(device: Any) -> int:
    return 0 if device.type == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
