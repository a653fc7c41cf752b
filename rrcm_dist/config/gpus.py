"""Kinds of GPU that a cost can be estimated for: makers' data sheets, dense arithmetic, no sparsity."""

import difflib
from dataclasses import dataclass

from rrcm_dist.errors import InvalidInput

MODEL_FLOPS_UTILISATION = 0.4
"""Share of a GPU's peak that is assumed to be reached."""
GPUS_PER_NODE = 8
"""As many share a node, by assumption; more than these speak over the network."""
NETWORK_GB_S = 25.0
"""Network of a GPU in one direction, by assumption: 200 Gbit/s InfiniBand each."""


@dataclass(frozen=True)
class GPU:
    """One kind of GPU."""

    name: str
    half_tflops: float
    """Peak of dense matrix products in bf16 accumulated in float32, TFLOP/s; in fp16 where there is no bf16."""
    single_tflops: float
    """Peak in float32 without TF32, TFLOP/s."""
    memory_gb: float
    memory_gb_s: float
    """Bandwidth of its memory, GB/s."""
    link_gb_s: float
    """To the other GPUs of its node in one direction, GB/s: half of what is told of NVLink, or PCIe x16."""
    has_bf16: bool = True


GPUS = {
    gpu.name: gpu
    for gpu in (
        GPU("A800", 312, 19.5, 80, 2039, 200),
        GPU("A100", 312, 19.5, 80, 2039, 300),
        GPU("A100-40GB", 312, 19.5, 40, 1555, 300),
        GPU("H100", 989, 67, 80, 3350, 450),
        GPU("H800", 989, 67, 80, 3350, 200),
        GPU("H200", 989, 67, 141, 4800, 450),
        GPU("H20", 148, 44, 96, 4000, 450),
        GPU("L40S", 362, 91.6, 48, 864, 32),
        GPU("A6000", 155, 38.7, 48, 768, 32),
        GPU("A10", 125, 31.2, 24, 600, 32),
        GPU("L4", 121, 30.3, 24, 300, 32),
        GPU("4090", 165, 82.6, 24, 1008, 32),
        GPU("3090", 71, 35.6, 24, 936, 32),
        GPU("V100", 125, 15.7, 32, 900, 150, has_bf16=False),
    )
}


@dataclass(frozen=True)
class Machine:
    """So many GPUs of one kind."""

    gpus: int
    gpu: GPU

    def __str__(self) -> str:
        return f"{self.gpus} {self.gpu.name}"

    def seconds(self, flops: float, precision: str) -> float:
        """Time for `flops` at the assumed utilisation."""
        return flops / (self.gpus * self.peak_tflops(precision) * 1e12 * MODEL_FLOPS_UTILISATION)

    def peak_tflops(self, precision: str) -> float:
        """Peak of one GPU in the network's precision."""
        return self.gpu.half_tflops if precision == "bf16" else self.gpu.single_tflops

    @property
    def ring_gb_s(self) -> float:
        """What a GPU sends in rings over all of them, GB/s: as many rings as GPUs leave a node, by all its links."""
        network = NETWORK_GB_S * GPUS_PER_NODE
        return self.gpu.link_gb_s if self.gpus <= GPUS_PER_NODE else min(network, self.gpu.link_gb_s)

    def assumption(self, precision: str) -> str:
        """The remark beside every time."""
        words = precision if precision == "fp32" or self.gpu.has_bf16 else "fp16 (it has no bf16)"
        return f"assuming {MODEL_FLOPS_UTILISATION:.0%} of {self.peak_tflops(precision):g} TFLOP/s in {words}"


def gpu_of_kind(name: str) -> GPU:
    """The entry of `GPUS` called `name`, in any case; raises `InvalidInput` where there is none."""
    by_name = {known.lower(): gpu for known, gpu in GPUS.items()}
    wanted = name.lower().replace("rtx", "").replace("nvidia", "").strip(" -_")
    if wanted in by_name:
        return by_name[wanted]
    near = difflib.get_close_matches(wanted, by_name, n=1, cutoff=0.6)
    hint = f"did you mean {by_name[near[0]].name}? " if near else ""
    raise InvalidInput(f"unknown kind of GPU {name!r}: {hint}there are {', '.join(GPUS)}")
