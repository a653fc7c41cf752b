"""Gradient norms at ZeRO stages 1 to 3 without the host waiting for the device.

DeepSpeed reads the norm on the host up to three times a step, to skip a step whose gradient is not finite. Here nothing
needs skipping: the guard reads the norm a step later and ends the run before anything of that step is kept.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rrcm_dist.distributed.collectives import sum_over_ranks


def keep_norms_on_device(optimizer: Any, device: torch.device) -> None:
    """Have DeepSpeed's ZeRO optimiser compute the norm and clip by it on the device, and look at it nowhere else.

    A gradient that is not finite then goes into the parameters, and the norm that the engine tells is infinite.
    """
    from deepspeed.runtime.zero import stage3, stage_1_and_2

    for module in (stage_1_and_2, stage3):
        module.is_invalid_grad_norm = lambda norm: False  # type: ignore[attr-defined]

    def norm(gradients: Sequence[Tensor], params: Sequence[nn.Parameter], norm_type: float = 2) -> Tensor:
        """L2 norm of all ranks' shares of a parameter group's gradient; DeepSpeed's own uploads and reads a number."""
        squares = [gradient.detach().float().square().sum() for gradient in gradients]
        own = torch.stack(squares).sum() if squares else torch.zeros((), device=device)
        return sum_over_ranks(own).sqrt()

    optimizer.get_grad_norm_direct = norm
