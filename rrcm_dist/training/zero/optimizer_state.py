"""AdamW's moments as whole tensors by the parameters' names, whatever ranks and ZeRO stage hold them.

What one world took out, any other can put in: this is what lets a run change its ranks and its stage.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rrcm_dist.training.zero.parameters import is_cut, own_part_of, put, whole

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Names of torch's AdamW for the averages of the gradient and of its square."""


def whole_moments(engine: Any) -> Iterator[tuple[str, Tensor]]:
    """('exp_avg.NAME', values in the parameter's shape), float32, of a DeepSpeed engine that has made a step.

    Every rank must go through all of it.
    """
    from deepspeed.utils import safe_get_full_optimizer_state, safe_get_local_optimizer_state

    _link(engine.optimizer)
    for name, parameter in _trained(engine):
        for moment in MOMENTS:
            if is_cut(parameter):
                yield f"{moment}.{name}", whole(parameter, safe_get_local_optimizer_state(parameter, moment))
            elif hasattr(parameter, "_hp_mapping"):
                yield f"{moment}.{name}", safe_get_full_optimizer_state(parameter, moment)
            else:
                yield f"{moment}.{name}", engine.optimizer.state[parameter][moment]


def set_moments(engine: Any, moments: Mapping[str, Tensor], steps: int) -> None:
    """Put in what `whole_moments` gave, in any world, after `steps` steps; the same on every rank."""
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    _begin_state(engine, steps)
    _link(engine.optimizer)
    for name, parameter in _trained(engine):
        for moment in MOMENTS:
            values = moments[f"{moment}.{name}"].to(parameter.device)
            if is_cut(parameter):
                part = torch.zeros_like(parameter.ds_tensor)  # type: ignore[attr-defined]
                put(part, own_part_of(parameter, values))
                safe_set_local_optimizer_state(parameter, part, moment)
            elif hasattr(parameter, "_hp_mapping"):
                safe_set_full_optimizer_state(parameter, values, moment)
            else:
                engine.optimizer.state[parameter][moment].copy_(values)


def _trained(engine: Any) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in engine.module.named_parameters() if parameter.requires_grad]


def _begin_state(engine: Any, steps: int) -> None:
    """The state that AdamW would have made at its first step; under ZeRO it is that of flat float32 partitions."""
    zero = engine.optimizer
    adamw = zero if isinstance(zero, torch.optim.Optimizer) else zero.optimizer
    partitions = getattr(zero, "single_partition_of_fp32_groups", None)  # stages 1 and 2
    partitions = partitions or getattr(zero, "fp32_partitioned_groups_flat", None)  # stage 3
    for group in adamw.param_groups:
        on_device = group.get("fused") or group.get("capturable")
        for held in partitions or group["params"]:
            adamw.state[held] = {
                "step": torch.tensor(float(steps), device=held.device if on_device else "cpu"),
                **{moment: torch.zeros_like(held) for moment in MOMENTS},
            }


def _link(zero: Any) -> None:
    """Let parameters of stages 1 and 2 know their moments.

    DeepSpeed does so once, in the middle of its first step, when of several groups only the first has moments.
    """
    if hasattr(zero, "_hp_optimizer_states_linked"):
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()
