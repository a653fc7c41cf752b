"""Real training steps as several gloo ranks of this machine, each a fresh process: seconds, peak memory, bytes sent.

Views are random pixels made beforehand, so that no loader plays a part. Bytes are those that the kernel counts on the
process's own TCP sockets (TCP_INFO), headers and acknowledgements left out: what a rank truly sent.
"""

import os
import socket
import struct
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.ranks import finish, run_ranks

BYTES_SENT_OFFSET = 200
"""Of tcpi_bytes_sent in the kernel's struct tcp_info (Linux 4.19 and later)."""
SMALL_NETWORK = (
    "encoder.image_size=16",
    "encoder.patch=4",
    "encoder.width=256",
    "encoder.depth=4",
    "encoder.heads=4",
    "projector.hidden=512",
)
"""3.7 million parameters: bytes of keys and batch norms are seen beside those of weights."""


@dataclass(frozen=True)
class Measured:
    """Of the steady steps of one rank; the first step, which allocates, is left out."""

    seconds: float
    """Median of a step."""
    sent_bytes: float
    """Sent over the process's sockets, per step."""
    payload_bytes: dict[str, float]
    """Sizes of the tensors given to the collectives in one step, by operation."""
    peak_bytes: int
    """Most resident memory during these steps, above what the process held before the networks were built."""


def small_recipe(batch: int, network: tuple[str, ...] = SMALL_NETWORK, **training: Any) -> Any:
    """A pre-training recipe for CPUs, in float32, without a probe; 8 divides the batch, the ranks divide 8."""
    from rrcm_dist.config.load import load_recipe

    settings = {"batch": batch, "precision": "fp32", "attention": "sdpa", **training}
    changes = [f"training.{key}={'null' if value is None else value}" for key, value in settings.items()]
    return load_recipe("cifar10/pretrain-b", [*network, *changes, "data.streams=8", "probe.on=false"], "pretrain")


def measure_ranks(recipe: Any, ranks: int, steps: int, threads: int = 1) -> list[Measured]:
    """Train `1 + steps` steps of a pre-training recipe as `ranks` ranks; one result a rank."""
    from rrcm_dist.config.load import dump_recipe

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "recipe.yaml")
        file.write_text(dump_recipe(recipe))
        results = run_ranks("benchmarks.training_ranks", [str(file), str(steps)], ranks, threads)
    return [Measured(**result) for result in results]


def sent_bytes() -> int:
    """Bytes of data that this process has sent over the TCP connections it has open."""
    total = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            connection = socket.socket(fileno=os.dup(int(descriptor)))
        except OSError:
            continue  # no socket, or the listing itself
        with connection:
            if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM:
                information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                total += struct.unpack_from("Q", information, BYTES_SENT_OFFSET)[0]
    return total


def random_batch(rows: int, image_size: int, seed: int) -> Any:
    """A rank's share of a pre-training batch: random pixels, with no photometric change."""
    import torch

    from rrcm_dist.data.batches import PretrainingBatch
    from rrcm_dist.data.photometric import COLUMNS, JITTERS, Column

    generator = torch.Generator().manual_seed(seed)
    size = (rows, 3, image_size, image_size)
    plain, view_a, view_b = (torch.randint(256, size, dtype=torch.uint8, generator=generator) for _ in range(3))
    unchanged = torch.zeros(rows, COLUMNS)
    unchanged[:, Column.ORDER : Column.ORDER + JITTERS] = -1
    numbers = torch.arange(rows)
    return PretrainingBatch(
        plain=plain,
        view_a=view_a,
        view_b=view_b,
        photometric_a=unchanged,
        photometric_b=unchanged,
        crops=torch.tensor([[0, 0, image_size, image_size]] * 2, dtype=torch.int32).expand(rows, 2, 4),
        labels=numbers,
        sample_ids=numbers,
        keys=[str(number) for number in range(rows)],
        rows=numbers,
        failures=0,
    )


def measure_here(recipe: Any, steps: int) -> Measured:
    """Train as the rank that the environment describes."""
    from benchmarks.payloads import Payloads
    from benchmarks.process_memory import peak_bytes, resident_bytes
    from rrcm_dist.distributed.world import join_world
    from rrcm_dist.training.pretraining import PretrainingStep

    with join_world("cpu") as world:
        before = resident_bytes()
        step = PretrainingStep(recipe, 1000, world)
        batch = random_batch(recipe.training.batch // world.size, recipe.encoder.image_size, world.rank)

        def train(k: int) -> None:
            step.backward(batch, k)
            step.engine.update(recipe.optimizer.lr, recipe.optimizer.clip)
            step.after_update(k)

        train(0)
        resident_bytes()
        seconds: list[float] = []
        sent_before = sent_bytes()
        for k in range(1, steps + 1):
            start = time.perf_counter()
            train(k)
            seconds.append(time.perf_counter() - start)
        sent, peak = (sent_bytes() - sent_before) / steps, peak_bytes() - before
        with Payloads() as payloads:  # takes time of its own
            train(steps + 1)
        return Measured(median(seconds), sent, dict(payloads.sizes), peak)


if __name__ == "__main__":
    from rrcm_dist.config.load import load_recipe

    finish(asdict(measure_here(load_recipe(sys.argv[1], kind="pretrain"), int(sys.argv[2]))))
