"""Kinds of GPU that a cost can be estimated for: makers' data sheets, dense arithmetic, no sparsity."""

import difflib
from dataclasses import dataclass

from rrcm_dist.errors import InvalidInput


@dataclass(frozen=True)
class GPU:
    """One kind of GPU."""

    name: str
    half_tflops: float
    """Peak of dense matrix products in bf16 accumulated in float32, TFLOP/s; in fp16 where there is no bf16."""
    single_tflops: float
    """Peak in float32 without TF32, TFLOP/s."""
    memory_gb: float
    has_bf16: bool = True


GPUS = {
    gpu.name: gpu
    for gpu in (
        GPU("A800", 312, 19.5, 80),
        GPU("A100", 312, 19.5, 80),
        GPU("A100-40GB", 312, 19.5, 40),
        GPU("H100", 989, 67, 80),
        GPU("H800", 989, 67, 80),
        GPU("H200", 989, 67, 141),
        GPU("H20", 148, 44, 96),
        GPU("L40S", 362, 91.6, 48),
        GPU("A6000", 155, 38.7, 48),
        GPU("A10", 125, 31.2, 24),
        GPU("L4", 121, 30.3, 24),
        GPU("4090", 165, 82.6, 24),
        GPU("3090", 71, 35.6, 24),
        GPU("V100", 125, 15.7, 32, has_bf16=False),
    )
}


def gpu_of_kind(name: str) -> GPU:
    """The entry of `GPUS` called `name`, in any case; raises `InvalidInput` where there is none."""
    by_name = {known.lower(): gpu for known, gpu in GPUS.items()}
    wanted = name.lower().replace("rtx", "").replace("nvidia", "").strip(" -_")
    if wanted in by_name:
        return by_name[wanted]
    near = difflib.get_close_matches(wanted, by_name, n=1, cutoff=0.6)
    hint = f"did you mean {by_name[near[0]].name}? " if near else ""
    raise InvalidInput(f"unknown kind of GPU {name!r}: {hint}there are {', '.join(GPUS)}")
