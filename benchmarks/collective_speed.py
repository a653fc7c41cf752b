"""Latency and bandwidth of an all-reduce between gloo ranks of this machine, each a fresh process."""

import time
from statistics import median

from benchmarks.ranks import finish

SMALL_BYTES, LARGE_BYTES = 4096, 64_000_000
REPETITIONS = 7


def measure_all_reduce() -> tuple[float, float]:
    """As the rank that the environment describes: α of one step round the ring in seconds, and bytes/s sent."""
    import torch
    import torch.distributed as dist

    from rrcm_dist.distributed.world import join_world

    with join_world("cpu") as world:
        seconds = {}
        for size in (SMALL_BYTES, LARGE_BYTES):
            tensor, times = torch.zeros(size // 4), []
            for _ in range(REPETITIONS):
                dist.barrier()
                start = time.perf_counter()
                dist.all_reduce(tensor)
                times.append(time.perf_counter() - start)
            seconds[size] = median(times)
        hops = 2 * (world.size - 1)
        sent = hops / world.size * LARGE_BYTES
        return seconds[SMALL_BYTES] / hops, sent / (seconds[LARGE_BYTES] - seconds[SMALL_BYTES])


if __name__ == "__main__":
    finish(measure_all_reduce())
