"""ZeRO stages 0 to 3 side by side: seconds per step, peak memory and bytes sent of a rank, as ratios to stage 0.

Real pre-training steps in float32 as gloo ranks of this machine, each stage in fresh processes; the network is large
and the batch small, so that what the stages share out is most of the memory.

    python -m benchmarks zero_stages --ranks 2 --rounds 2
"""

import argparse

from benchmarks.machine import markdown_table, report
from benchmarks.training_ranks import Measured, measure_ranks, small_recipe
from rrcm_dist.config.communication import sent_bytes
from rrcm_dist.config.estimate import memory_bytes, network_parameters
from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.progress import progress_bar

STAGES = range(4)
LARGE_NETWORK = (
    "encoder.image_size=16",
    "encoder.patch=8",
    "encoder.width=512",
    "encoder.depth=8",
    "encoder.heads=8",
    "projector.hidden=1024",
)
"""27.1 million parameters and 6 tokens: 109 MB a copy, and images cost next to nothing."""
STATES = ("weights", "gradients", "optimiser", "target network")


def main() -> None:
    """Measure every stage in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16, help="global batch")
    parser.add_argument("--micro-batch", type=int, help="per rank [default: its whole share]")
    parser.add_argument("--steps", type=int, default=4, help="measured steps of each process")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each; the fastest counts")
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    recipes = {
        stage: small_recipe(arguments.batch, LARGE_NETWORK, zero_stage=stage, micro_batch=arguments.micro_batch)
        for stage in STAGES
    }
    measured: dict[int, list[list[Measured]]] = {stage: [] for stage in STAGES}
    with progress_bar("zero_stages", arguments.rounds * len(STAGES), 0, "processes") as bar:
        for _ in range(arguments.rounds):
            for stage, recipe in recipes.items():
                measured[stage].append(measure_ranks(recipe, arguments.ranks, arguments.steps))
                bar.advance()
    rows = [_row(stage, recipes[stage], measured, arguments.ranks) for stage in STAGES]
    parameters = network_parameters(recipes[0]) / 1e6
    title = f"ZeRO stages, {arguments.ranks} ranks, {parameters:.1f}M parameters, batch {arguments.batch}, float32"
    report("zero_stages", title, markdown_table(rows), arguments.record)


def _row(stage: int, recipe: PretrainConfig, measured: dict[int, list[list[Measured]]], ranks: int) -> dict[str, str]:
    seconds, peak, sent = _best(measured[stage])
    first_seconds, first_peak, first_sent = _best(measured[0])
    uses = memory_bytes(recipe, ranks)
    states = sum(uses[name] for name in STATES)
    return {
        "stage": str(stage),
        "seconds": f"{seconds:.3f}",
        "seconds, stage 0 = 1": f"{seconds / first_seconds:.2f}",
        "peak memory": f"{peak / 1e6:.0f} MB",
        "memory, stage 0 = 1": f"{peak / first_peak:.2f}",
        "states, computed": f"{states / 1e6:.0f} MB",
        "sent": f"{sent / 1e6:.0f} MB",
        "sent, stage 0 = 1": f"{sent / first_sent:.2f}",
        "sent, computed = 1": f"{sent / sum(sent_bytes(recipe, ranks).values()):.2f}",
    }


def _best(processes: list[list[Measured]]) -> tuple[float, float, float]:
    """Seconds of the fastest processes' slowest rank, least peak memory of the largest rank, bytes of the first."""
    seconds = min(max(rank.seconds for rank in ranks) for ranks in processes)
    peak = min(max(rank.peak_bytes for rank in ranks) for ranks in processes)
    return seconds, peak, processes[0][0].sent_bytes


if __name__ == "__main__":
    main()
