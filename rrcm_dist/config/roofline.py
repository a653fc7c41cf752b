"""The least time of a step: its FLOPs at the arithmetic's peak, its memory traffic and its messages at theirs.

Memory traffic is that of kernels which read each operand once and write each result once, nothing fused but attention;
fusing (`training.compile`) needs less, caches hide some, so it is an estimate, not a bound.
"""

from dataclasses import dataclass

from rrcm_dist.config import estimate
from rrcm_dist.config.communication import sent_bytes
from rrcm_dist.config.gpus import Machine
from rrcm_dist.config.parts import EncoderConfig
from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig

ADAMW_TRAFFIC = 7
"""Reads of weight, gradient and two moments, writes of weight and moments, in float32 numbers per parameter."""
AVERAGE_TRAFFIC = 3
"""Two reads and a write per parameter of the target network or another average."""


@dataclass(frozen=True)
class Roof:
    """One resource of a GPU: what a step takes of it, and the time that takes at peak."""

    amount: float
    unit: str
    rate: float
    """Peak, units per second."""

    @property
    def seconds(self) -> float:
        """The least time of a step as far as this resource goes."""
        return self.amount / self.rate


def roofline(recipe: PretrainConfig | FinetuneConfig, machine: Machine) -> dict[str, Roof]:
    """What a step takes of one GPU's arithmetic, memory and network."""
    flops = (estimate.step_flops(recipe) + estimate.reencoding_flops(recipe, machine.gpus)) / machine.gpus
    sent = sum(sent_bytes(recipe, machine.gpus).values())
    return {
        "arithmetic": Roof(flops, "FLOP", machine.peak_tflops(recipe.training.precision) * 1e12),
        "memory": Roof(memory_traffic(recipe, machine.gpus), "B", machine.gpu.memory_gb_s * 1e9),
        "network": Roof(sent, "B", machine.ring_gb_s * 1e9),
    }


def memory_traffic(recipe: PretrainConfig | FinetuneConfig, gpus: int) -> float:
    """Bytes that one GPU reads from and writes to its memory in a step.

    A backward pass moves twice a forward pass: it reads what that wrote and a gradient beside, and writes a gradient.
    """
    passes = estimate.step_flops(recipe) + estimate.reencoding_flops(recipe, gpus)
    forward_passes = passes / estimate.forward_flops(recipe.encoder) / gpus
    activations = forward_passes * forward_traffic(recipe.encoder, recipe.training.precision)
    stage, parameters = recipe.training.zero_stage, estimate.network_parameters(recipe)
    averages = len(recipe.training.averages) + isinstance(recipe, PretrainConfig)
    optimiser = 4.0 * parameters * ADAMW_TRAFFIC / (gpus if stage else 1)
    averaging = 4.0 * parameters * AVERAGE_TRAFFIC * averages / (gpus if stage == 3 else 1)
    return activations + optimiser + averaging


def forward_traffic(encoder: EncoderConfig, precision: str) -> float:
    """Bytes that encoding one image moves; weights are shared by many images and left out.

    Per token and block, in multiples of the width. Float32: two norms' inputs, two residual sums read and written.
    In the network's precision: two norms' outputs, q/k/v (read 1, write 3), attention (read 3, write 1), its output
    (1, 1), two addends, the MLP's two products (1 and r, r and 1) and GELU (r, r), r the MLP's ratio. The last block
    norms all tokens (read in float32, write) and computes k and v of them (read 1, write 2), which attention reads.
    """
    value_bytes = 2 if precision == "bf16" else 4
    block = 6 * 4 + value_bytes * (2 + 4 + 4 + 2 + 2 + 2 + 4 * encoder.mlp_ratio)
    last_block = 4 + value_bytes * (1 + 3 + 2)
    return estimate.tokens(encoder) * encoder.width * ((encoder.depth - 1) * block + last_block)
