"""What runs once a rank: computes on its device, joins the ranks as training does, and measures an all-reduce."""

import os
import sys
import time
from typing import TYPE_CHECKING

from cluster.preflight.reports import DONE, Finding, Speaker
from cluster.rank_place import take_place_from_srun
from rrcm_dist.errors import RRCMError

if TYPE_CHECKING:
    import torch

    from rrcm_dist.distributed.world import World

CPU_BYTES, CUDA_BYTES = 1 << 24, 1 << 28
"""Size of the message of an all-reduce: large enough for the bandwidth to count and not the latency."""
ROUNDS = 3
MATRIX = 1024


def main() -> None:
    """`python -m cluster.preflight.rank DEVICE GPUS` under srun; MASTER_ADDR and MASTER_PORT are set already."""
    device, gpus = sys.argv[1], int(sys.argv[2])
    take_place_from_srun()
    speaker = Speaker(os.environ["SLURMD_NODENAME"], int(os.environ["RANK"]))
    speaker.begins("importing torch")
    from rrcm_dist.distributed.world import join_world

    if check_device(speaker, device, gpus, int(os.environ["LOCAL_RANK"])):
        speaker.begins("meeting")
        try:
            with join_world(device) as world:
                speaker.begins("all-reduce")
                speaker.found(measure(world))
                speaker.begins(DONE)
        except (RuntimeError, RRCMError) as error:
            mend = "look at the network between these nodes, and at NCCL's and gloo's settings in the site file"
            speaker.found(Finding("communication", "failed", str(error) or type(error).__name__, mend))
    sys.stdout.flush()
    os._exit(0)  # threads of the communication libraries may abort a process that winds down


def check_device(speaker: Speaker, name: str, gpus: int, local_rank: int) -> bool:
    """Say whether this rank's device computes, and whether the node has `gpus`; returns whether it can go on."""
    import torch

    from rrcm_dist.distributed.world import choose_device

    speaker.begins("device")
    mend = "look at `nvidia-smi` and the kernel's log on the node, and whether torch is built for its driver"
    try:
        device = choose_device(name, local_rank)
        seen = torch.cuda.device_count() if device.type == "cuda" else 0
        if device.type == "cuda" and seen < gpus:
            speaker.found(Finding("device", f"{seen} GPUs", f"{seen} GPUs are seen where {gpus} were asked for", mend))
            return False
        product = torch.ones(MATRIX, MATRIX, device=device) @ torch.ones(MATRIX, MATRIX, device=device)
        right = bool((product == MATRIX).all())
    except (RuntimeError, RRCMError) as error:
        speaker.found(Finding("device", "fails", f"local rank {local_rank} cannot compute: {error}", mend))
        return False
    if not right:
        speaker.found(Finding("device", "wrong", f"local rank {local_rank}: {device} computes a wrong product", mend))
        return False
    speaker.found(Finding("device", f"{seen} GPUs" if seen else device.type))
    return True


def measure(world: "World") -> Finding:
    """Bus bandwidth of an all-reduce over all ranks, as `value` in GB/s."""
    import torch
    import torch.distributed as dist

    if world.size == 1:
        return Finding("communication", "alone")
    size = CUDA_BYTES if world.device.type == "cuda" else CPU_BYTES
    message = torch.empty(size // 4, dtype=torch.float32, device=world.device)
    for round_ in range(1 + ROUNDS):
        if round_ == 1:  # after a first one, which sets up connections
            start = time.perf_counter()
        message.fill_(world.rank + 1)
        dist.all_reduce(message)
    right = _all_equal(message, world.size * (world.size + 1) / 2)
    seconds = (time.perf_counter() - start) / ROUNDS
    if not right:
        return Finding("communication", "wrong", "an all-reduce gives a wrong sum", "look at memory and network cards")
    algorithm = size / 1e9 / seconds
    bus = algorithm * 2 * (world.size - 1) / world.size
    words = f"{dist.get_backend()}, {size >> 20} MiB: algorithm {algorithm:.2f} GB/s, bus {bus:.2f} GB/s"
    return Finding("communication", words, value=bus)


def _all_equal(message: "torch.Tensor", expected: float) -> bool:
    """Waits for the device, too."""
    return bool((message == expected).all())


if __name__ == "__main__":
    main()
