"""One pre-training step of ours beside the step written out plainly: seconds and peak memory, as ratios.

The same network, batch, loss, precision and machine, each implementation in a process of its own, taken in turn. Views
are random pixels made beforehand, so that the loader plays no part; the photometric part is left out on both sides.

    python -m benchmarks pretraining_step                                        on a CPU, in some minutes
    python -m benchmarks pretraining_step --recipe imagenet/pretrain-b --device cuda --batch 4096 --micro-batch 512
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from statistics import median
from typing import Any

from benchmarks.machine import markdown_table, report

CPU_NETWORK = ("encoder.image_size=32", "encoder.patch=4", "encoder.width=384", "encoder.depth=6", "encoder.heads=6")
PEAK_TFLOPS = {"H200": 989, "H100": 989, "A800": 312, "A100": 312}
"""Dense bf16, by a part of the device's name; for MFU."""


def main() -> None:
    """Measure both implementations in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", help="recipe whose network is used [default: a small one for CPUs]")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--micro-batch", type=int, help="also measure ours with this micro-batch")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="[default: fp32 on cpu, bf16 on cuda]")
    parser.add_argument("--attention", default="auto", choices=("auto", "sdpa", "xformers"))
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each")
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.precision = arguments.precision or ("fp32" if arguments.device == "cpu" else "bf16")
    if arguments.only:
        print(json.dumps(_measure(arguments)))
    else:
        _compare(arguments)


def _compare(arguments: argparse.Namespace) -> None:
    kinds = {"plain": "plain", "ours": "ours"}
    if arguments.micro_batch:
        kinds[f"ours, micro-batch {arguments.micro_batch}"] = "cached"
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    for _ in range(arguments.rounds):
        for name, kind in kinds.items():
            measured[name].append(_in_own_process(kind))
    plain_seconds, plain_bytes = (min(m[key] for m in measured["plain"]) for key in ("seconds", "peak_bytes"))
    rows = []
    for name, results in measured.items():
        seconds, peak_bytes = (min(m[key] for m in results) for key in ("seconds", "peak_bytes"))
        row = {
            "step": name,
            "seconds": f"{seconds:.3f}",
            "images/s": f"{arguments.batch / seconds:.1f}",
            "speed, plain = 1": f"{plain_seconds / seconds:.2f}",
            "peak memory": f"{peak_bytes / 2**30:.2f} GiB",
            "memory, plain = 1": f"{peak_bytes / plain_bytes:.2f}",
        }
        if results[0]["peak_flops"]:
            row["MFU"] = f"{results[0]['flops'] / seconds / results[0]['peak_flops']:.1%}"
        rows.append(row)
    title = f"Pre-training step, {arguments.recipe or 'small network'}, batch {arguments.batch}, {arguments.precision}"
    report("pretraining_step", title, markdown_table(rows), arguments.record)


def _in_own_process(kind: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks", "pretraining_step", *sys.argv[1:], "--only", kind]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"the measurement of {kind!r} failed (exit code {done.returncode})")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step, peak bytes above what the process held before networks were built, FLOPs."""
    import torch

    from rrcm_dist.config.estimate import step_flops
    from rrcm_dist.distributed.world import join_world

    recipe = _recipe(arguments)
    with join_world(arguments.device) as world:
        before = _peak_bytes(world.device)
        step = _plain(recipe, world) if arguments.only == "plain" else _ours(recipe, world)
        step(0)
        seconds = []
        for k in range(1, arguments.steps + 1):
            start = time.perf_counter()
            step(k)
            if world.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        peak_bytes = _peak_bytes(world.device) - before
        name = torch.cuda.get_device_name() if world.device.type == "cuda" else ""
        peak = next((tflops * 1e12 for kind, tflops in PEAK_TFLOPS.items() if kind in name), 0.0)
        return {
            "seconds": median(seconds), "peak_bytes": peak_bytes, "flops": step_flops(recipe), "peak_flops": peak,
        }  # fmt: skip


def _recipe(arguments: argparse.Namespace) -> Any:
    from rrcm_dist.config.load import load_recipe

    network = () if arguments.recipe else CPU_NETWORK
    return load_recipe(
        arguments.recipe or "cifar10/pretrain-b",
        [
            *network,
            f"training.batch={arguments.batch}",
            f"training.precision={arguments.precision}",
            f"training.attention={arguments.attention}",
            f"training.micro_batch={arguments.micro_batch if arguments.only == 'cached' else 'null'}",
            "data.streams=1",
        ],
        kind="pretrain",
    )


def _ours(recipe: Any, world: Any) -> Any:
    """Our step as the trainer runs it, on ready-made views."""
    from rrcm_dist.training.pretraining import PretrainingStep

    step, batch = PretrainingStep(recipe, total_steps=1000, world=world), _batch(recipe)

    def run(k: int) -> None:
        step.backward(batch, k)
        step.engine.update(recipe.optimizer.lr, None)
        step.after_update(k)

    return run


def _plain(recipe: Any, world: Any) -> Any:
    import torch

    from benchmarks.plain_step import PlainStep
    from rrcm_dist.data.photometric import apply_photometric
    from rrcm_dist.models.attention import use_attention
    from rrcm_dist.noise import grid

    step, batch, device = PlainStep(recipe, world.device), _batch(recipe), world.device
    use_attention(step.online, recipe.training.attention, device)
    use_attention(step.target, recipe.training.attention, device)
    levels = grid(recipe.noise, 41)

    def run(k: int) -> None:
        z = torch.randn(batch.plain.shape, device=device)
        a = apply_photometric(batch.view_a.to(device), batch.photometric_a)
        b = apply_photometric(batch.view_b.to(device), batch.photometric_b)
        x = batch.plain.to(device).float() / 127.5 - 1
        step(a, b, x, z, (float(levels[-1]), float(levels[k]), float(levels[k + 1])))

    return run


def _batch(recipe: Any) -> Any:
    """Random pixels, with no photometric change."""
    import torch

    from rrcm_dist.data.batches import PretrainingBatch
    from rrcm_dist.data.photometric import COLUMNS, JITTERS, Column

    n, size = recipe.training.batch, recipe.encoder.image_size
    generator = torch.Generator().manual_seed(0)
    views = [torch.randint(256, (n, 3, size, size), dtype=torch.uint8, generator=generator) for _ in range(3)]
    unchanged = torch.zeros(n, COLUMNS)
    unchanged[:, Column.ORDER : Column.ORDER + JITTERS] = -1
    rows = torch.arange(n)
    return PretrainingBatch(*views, unchanged, unchanged, rows, rows, [str(i) for i in range(n)], rows, 0)


def _peak_bytes(device: Any) -> int:
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
