"""Where a steady pre-training step has the host wait for the device: it should nowhere, so that the device never idles.

CUDA: torch's own check of synchronising calls, over steady steps, each with the place it comes from. CPU: the profiler
counts reads of tensors' values, which would be waits on a GPU, but for tensors that lie on the host there, too. At ZeRO
stage 3 DeepSpeed itself compares over ranks in which order parameters are used: that is told, and is no failure.

    python -m benchmarks host_syncs                                                  on a CPU, ZeRO stages 0 to 3
    python -m benchmarks host_syncs --device cuda --recipe imagenet/pretrain-b --batch 512
"""

import argparse
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

STEADY_STEPS = 3
CLASSES = 10
READS = ("aten::_local_scalar_dense", "aten::nonzero")
"""What every item(), bool(), tolist() of one value, nonzero() and indexing by a mask comes down to."""
ON_THE_HOST = {
    "torch/optim/": "AdamW counts its steps on the host",
    "rrcm_dist/data/photometric.py": "the views' parameters stay on the host",
}
"""Part of a place → why tensors read there lie on the host beside a GPU, too."""


def main() -> None:
    """Look at steady steps of each ZeRO stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--recipe", help="recipe whose network is used [default: a small one for CPUs]")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--stages", type=int, nargs="+", default=[0, 1, 2, 3], choices=range(4))
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    import torch

    from benchmarks.machine import markdown_table, report
    from rrcm_dist.distributed.world import join_world

    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("skipped: torch sees no GPU here; --device cpu counts reads by the profiler")
        return
    with join_world(arguments.device) as world:
        look = cuda_waits if arguments.device == "cuda" else host_reads
        found = {stage: look(_steady_step(_recipe(arguments, stage), world)) for stage in arguments.stages}
    rows = [
        {"ZeRO stage": str(stage), "per step": f"{count / STEADY_STEPS:g}", "place": place}
        for stage, places in found.items()
        for place, count in (places.most_common() or [("none", 0)])
    ]
    title = f"Host waits of a steady pre-training step, {arguments.device}, {arguments.recipe or 'small network'}"
    report("host_syncs", title, markdown_table(rows), arguments.record)
    if any(found[stage] for stage in arguments.stages if stage < 3):
        sys.exit("error: a steady step has the host wait for the device")


def host_reads(step: Callable[[], object], steps: int = STEADY_STEPS) -> Counter[str]:
    """How often steady steps read a tensor's value, by the innermost place that is not torch's own.

    Tensors that lie on the host beside a GPU, too, are left out. `step` is called once beforehand.
    """
    from torch.profiler import ProfilerActivity, profile

    step()
    with profile(activities=[ProfilerActivity.CPU], with_stack=True) as profiler:
        for _ in range(steps):
            step()
    places: Counter[str] = Counter()
    for event in profiler.events():
        if event.name in READS:
            places[_place(event)] += 1
    return Counter({place: n for place, n in places.items() if not any(part in place for part in ON_THE_HOST)})


def _place(event: Any) -> str:
    """`file.py: function` of the innermost caller in Python that is not part of torch, but for its optimisers."""
    caller, outermost = event.cpu_parent, "torch"
    while caller is not None:
        if match := re.fullmatch(r"(.*\.py)\(\d+\): (.*)", caller.name):
            outermost = f"{match[1]}: {match[2]}"
            if "torch/" not in match[1] or "torch/optim/" in match[1]:
                return outermost
        caller = caller.cpu_parent
    return outermost


def cuda_waits(step: Callable[[], None]) -> Counter[str]:
    """How often steady steps wait for a CUDA device, by file and line. `step` is called some times beforehand."""
    import torch

    for _ in range(STEADY_STEPS):
        step()
    torch.cuda.synchronize()
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in range(STEADY_STEPS):
                step()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    waits = [warning for warning in caught if "synchroniz" in str(warning.message)]
    return Counter(f"{warning.filename}:{warning.lineno}" for warning in waits)


def _recipe(arguments: argparse.Namespace, stage: int) -> Any:
    from benchmarks.training_ranks import SMALL_NETWORK
    from rrcm_dist.config.load import load_recipe

    settings = [
        f"training.batch={arguments.batch}",
        f"training.micro_batch={arguments.batch // 2}",
        f"training.precision={'bf16' if arguments.device == 'cuda' else 'fp32'}",
        f"training.zero_stage={stage}",
        "training.averages=[0.999]",
        "data.streams=8",
    ]
    network = () if arguments.recipe else SMALL_NETWORK
    return load_recipe(arguments.recipe or "cifar10/pretrain-b", [*network, *settings], "pretrain")


def _steady_step(recipe: Any, world: Any) -> Callable[[], None]:
    """What training does between two lines of metrics.jsonl, on one ready-made batch, a step further at each call."""
    import tempfile
    from pathlib import Path

    from rrcm_dist.training.pretraining_step import PretrainingStep
    from rrcm_dist.training.watching.guard import Guard
    from rrcm_dist.training.watching.probe import LinearProbe

    batch = _batch(recipe, world.device.type == "cuda")
    probe = LinearProbe(recipe.encoder.width, CLASSES, recipe.probe, world)
    step = PretrainingStep(recipe, 1000, world, probe)
    guard = Guard(world, Path(tempfile.gettempdir()))
    done = 0

    def train() -> None:
        nonlocal done
        train_once(step, recipe, batch, done, guard)
        done += 1

    return train


def train_once(step: Any, recipe: Any, batch: Any, number: int, guard: Any) -> dict[str, Any]:
    """One step with what the loop does at each: gradients, update, averages, guard. Returns the loss parts."""
    parts = step.backward(batch, number)
    gradient_norm = step.engine.update(recipe.optimizer.lr, recipe.optimizer.clip)
    step.after_update(number)
    step.averages.update(number)
    guard.watch(number, [parts["loss"], gradient_norm], batch.keys)
    return parts


def _batch(recipe: Any, pinned: bool) -> Any:
    """Random pixels with the recipe's photometric changes; on a GPU in pinned memory, as the loader delivers them."""
    import dataclasses

    import numpy as np
    import torch

    from benchmarks.training_ranks import random_batch
    from rrcm_dist.data.photometric import draw_photometric

    batch = random_batch(recipe.training.batch, recipe.encoder.image_size, seed=0)
    generator = np.random.default_rng(0)
    a, b = (
        torch.from_numpy(np.stack([draw_photometric(generator, recipe.views, view) for _ in batch.keys]))
        for view in (0, 1)
    )
    changed = dataclasses.replace(batch, photometric_a=a, photometric_b=b, labels=batch.labels % CLASSES)
    if not pinned:
        return changed
    uploaded = ("plain", "view_a", "view_b", "labels")
    return dataclasses.replace(changed, **{name: getattr(changed, name).pin_memory() for name in uploaded})
