"""Memory and time of one rank's pre-training loss, forward and backward, at large global batches on few or many ranks.

Keys of the right size stand in for those that the other ranks would have sent. Beside it stand the same loss by torch's
cross-entropy over all logits at once, what the recipe's estimate says, and batch² float32 numbers. Each cell is a fresh
process; peak memory is what the loss adds to its inputs (torch's count on CUDA, resident memory on a CPU).

    python -m benchmarks loss_memory --batches 4096 16384 65536 --ranks 1 8 32 128
"""

import argparse
import json
import os
import subprocess
import sys
import time
from statistics import median
from typing import Any

from benchmarks.machine import markdown_table, report
from benchmarks.process_memory import peak_bytes, resident_bytes
from rrcm_dist.config.estimate import loss_bytes
from rrcm_dist.config.load import load_recipe
from rrcm_dist.progress import progress_bar

KINDS = ("ours", "whole")
NOTE = """
`whole`: cross-entropy over the (batch/ranks, batch) matrix at once, for each of the three terms. `estimate` is what
`--dry-run` prints, the gathered keys included, which are inputs here."""


def main() -> None:
    """Measure every cell in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="imagenet/pretrain-b", help="for the widths of keys")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batches", type=int, nargs="+", default=[4096, 16384, 65536])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--seconds", type=float, default=60.0, help="a cell that would take longer is left out")
    parser.add_argument("--gflops", type=float, default=100.0, help="of this device in float32, to foresee seconds")
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        kind, batch, ranks = arguments.only
        print(json.dumps(_measure(arguments, kind, int(batch), int(ranks))))
        return
    cells = [(batch, ranks) for batch in arguments.batches for ranks in arguments.ranks]
    rows = []
    with progress_bar("loss memory", len(cells), 0, "cells") as bar:
        for batch, ranks in cells:
            rows.append(_row(arguments, batch, ranks))
            bar.advance()
    title = f"Memory of one rank's loss, {arguments.recipe}, {arguments.device}"
    report("loss_memory", title, markdown_table(rows) + "\n" + NOTE, arguments.record)


def _row(arguments: argparse.Namespace, batch: int, ranks: int) -> dict[str, str]:
    recipe, share = _recipe(arguments, batch), batch // ranks
    measured = {kind: _cell(arguments, kind, batch, ranks) for kind in KINDS}
    told = {kind: _told(result) for kind, result in measured.items()}
    seconds = [result["seconds"] for result in measured.values() if isinstance(result, dict)]
    ratio = f"{seconds[0] / seconds[1]:.2f}" if len(seconds) == len(KINDS) else "—"
    return {
        "batch": f"{batch:,}",
        "ranks": str(ranks),
        "ours": told["ours"],
        "estimate": _size(loss_bytes(recipe, ranks)),
        "whole": told["whole"],
        "batch/ranks × batch": _size(4.0 * share * batch),
        "batch²": _size(4.0 * batch**2),
        "seconds, whole = 1": ratio,
    }


def _cell(arguments: argparse.Namespace, kind: str, batch: int, ranks: int) -> dict[str, float] | str:
    """What was measured, or why nothing was."""
    recipe, share = _recipe(arguments, batch), batch // ranks
    flops = 4.0 * share * batch * _widths(recipe)
    if flops / arguments.gflops / 1e9 > arguments.seconds:
        return f"{flops / 1e12:.0f} TFLOP, left out"
    needed = loss_bytes(recipe, ranks) + (6 * 4.0 * share * batch if kind == "whole" else 0)
    if needed > _free_bytes(arguments.device):
        return f"about {_size(needed)}, does not fit here"
    command = [sys.executable, "-m", "benchmarks.loss_memory", *sys.argv[1:]]
    done = subprocess.run(
        [*command, "--only", kind, str(batch), str(ranks)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        return f"failed (exit code {done.returncode})"
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _told(result: dict[str, float] | str) -> str:
    return result if isinstance(result, str) else f"{_size(result['bytes'])}, {result['seconds']:.3g} s"


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _recipe(arguments: argparse.Namespace, batch: int) -> Any:
    return load_recipe(arguments.recipe, [f"training.batch={batch}", "training.micro_batch=null"], kind="pretrain")


def _widths(recipe: Any) -> int:
    """Of the three kinds of keys together."""
    return 2 * recipe.projector.output + recipe.encoder.width


def _free_bytes(device: str) -> float:
    if device == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    pages = os.sysconf("SC_AVPHYS_PAGES")
    return 0.8 * pages * os.sysconf("SC_PAGE_SIZE")


def _measure(arguments: argparse.Namespace, kind: str, batch: int, ranks: int) -> dict[str, float]:
    """Median seconds and peak bytes beyond the inputs of this rank's loss and its gradient."""
    import torch

    recipe, cuda = _recipe(arguments, batch), arguments.device == "cuda"
    sides = _sides(recipe, batch, batch // ranks, arguments.device)
    loss = _ours if kind == "ours" else _whole
    loss(*[(queries[:2].detach().requires_grad_(), keys[:2]) for queries, keys in sides], recipe.temperature)
    before, seconds = _held_bytes(cuda), []
    for _ in range(3):
        start = time.perf_counter()
        loss(*sides, recipe.temperature)
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"seconds": median(seconds), "bytes": _peak_bytes(cuda) - before}


def _sides(recipe: Any, batch: int, share: int, device: str) -> list[Any]:
    """Three pairs of queries (share, D), with gradient, and keys (batch, D)."""
    import torch

    generator = torch.Generator(device).manual_seed(0)
    output, width = recipe.projector.output, recipe.encoder.width
    return [
        (
            torch.randn(share, size, generator=generator, device=device, requires_grad=True),
            torch.randn(batch, size, generator=generator, device=device),
        )
        for size in (output, output, width)
    ]


def _ours(*sides_and_temperature: Any) -> None:
    from rrcm_dist.objectives.contrastive import nce_loss

    *sides, temperature = sides_and_temperature
    first, *others = [nce_loss(queries, keys, 0, temperature).mean() for queries, keys in sides]
    sum(others, start=first).backward()


def _whole(*sides_and_temperature: Any) -> None:
    import torch
    import torch.nn.functional as F

    *sides, temperature = sides_and_temperature
    total = torch.zeros((), device=sides[0][0].device)
    for queries, keys in sides:
        logits = F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T / temperature
        total = total + F.cross_entropy(logits, torch.arange(len(queries), device=logits.device))
    total.backward()


def _held_bytes(cuda: bool) -> float:
    """What is held now; the peak is counted from here on."""
    import torch

    if not cuda:
        return resident_bytes()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _peak_bytes(cuda: bool) -> float:
    import torch

    return torch.cuda.max_memory_allocated() if cuda else peak_bytes()


if __name__ == "__main__":
    main()
