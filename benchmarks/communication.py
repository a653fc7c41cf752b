"""Bytes that a rank sends in a pre-training step: the formulas' beside those on the wire, ZeRO stages 0 to 3.

Real steps of a small network as gloo ranks of this machine. Computed: rrcm_dist.config.communication. Payload: sizes
given to the collectives, counted call by call, as a ring would send them. Wire: what the kernel counts on the ranks'
TCP sockets.

    python -m benchmarks communication --ranks 2 4
"""

import argparse
from typing import Any

from benchmarks.machine import markdown_table, report
from benchmarks.payloads import sent_by_rings
from benchmarks.training_ranks import Measured, measure_ranks, small_recipe
from rrcm_dist.config.communication import sent_bytes
from rrcm_dist.progress import progress_bar

NOTE = """
Ratios are to the computed bytes. gloo's all-reduce and all-gather are rings and send what the formulas say. Its
reduce-scatter (gradients at stage 3) is an all-reduce of which each rank keeps a part: twice a ring's bytes, on the
wire and not in the payload; NCCL has a ring for it. The rest are headers of messages and, at stage 3, DeepSpeed's
checks that all ranks run the same modules. The guard's table and the probe are left out on both sides."""


def main() -> None:
    """Measure every stage with and without micro-batches and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--stages", type=int, nargs="+", default=[0, 1, 2, 3], choices=range(4))
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[1, 4], help="in which a rank's share is cut")
    parser.add_argument("--batch", type=int, default=16, help="global batch")
    parser.add_argument("--steps", type=int, default=2, help="measured steps")
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    cases = [
        (ranks, stage, cuts)
        for ranks in arguments.ranks
        for stage in arguments.stages
        for cuts in arguments.micro_batches
    ]
    rows = []
    with progress_bar("communication", len(cases), 0, "cases") as bar:
        for ranks, stage, cuts in cases:
            micro_batch = arguments.batch // ranks // cuts
            recipe = small_recipe(arguments.batch, zero_stage=stage, micro_batch=micro_batch)
            rows.append(_row(recipe, ranks, cuts, measure_ranks(recipe, ranks, arguments.steps)[0]))
            bar.advance()
    title = f"Bytes sent per step and rank, small network, batch {arguments.batch}"
    report("communication", title, markdown_table(rows) + "\n" + NOTE, arguments.record)


def _row(recipe: Any, ranks: int, cuts: int, measured: Measured) -> dict[str, str]:
    uses = sent_bytes(recipe, ranks)
    computed = sum(uses.values())
    payload = sent_by_rings(measured.payload_bytes, ranks)
    return {
        "ranks": str(ranks),
        "stage": str(recipe.training.zero_stage),
        "micro-batches": str(cuts),
        "gradients": f"{uses['gradients'] / 1e6:.2f} MB",
        "parameters": f"{uses['parameters'] / 1e6:.2f} MB",
        "loss and batch norm": f"{(uses['keys of the loss'] + uses['batch-norm statistics']) / 1e6:.3f} MB",
        "computed": f"{computed / 1e6:.2f} MB",
        "payload": f"{payload / computed:.3f}",
        "wire": f"{measured.sent_bytes / 1e6:.2f} MB",
        "wire, computed = 1": f"{measured.sent_bytes / computed:.3f}",
    }


if __name__ == "__main__":
    main()
