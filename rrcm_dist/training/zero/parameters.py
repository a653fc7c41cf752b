"""A parameter as a rank holds it: whole, or at ZeRO stage 3 one of as many equal flat parts as there are ranks.

The last parts are padded. DeepSpeed keeps a part as `ds_tensor`; a parameter is whole only while a pass needs it, or
for as long as DeepSpeed lets a small one persist.
"""

import torch
from torch import Tensor, nn

from rrcm_dist.distributed.collectives import gather_over_ranks, own_rank


def is_cut(parameter: nn.Parameter) -> bool:
    """Whether this rank owns but a part of it."""
    return hasattr(parameter, "ds_tensor")


def own_part(parameter: nn.Parameter) -> Tensor:
    """What this rank keeps of a parameter: flat and padded where it is cut, else the whole; writing to it changes it.

    Who writes to a cut parameter's part calls `drop_whole` afterwards.
    """
    return parameter.ds_tensor.data if is_cut(parameter) else parameter.data  # type: ignore[attr-defined]


def drop_whole(parameter: nn.Parameter) -> None:
    """Forget a cut parameter's whole values where they are at hand, so that the next pass gathers its parts anew."""
    if is_cut(parameter) and parameter.ds_status.name == "AVAILABLE":  # type: ignore[attr-defined]
        parameter.partition()  # type: ignore[attr-defined]


def whole(parameter: nn.Parameter, part: Tensor | None = None) -> Tensor:
    """A parameter's values, or those of another tensor that is cut like it, in its shape; every rank must call it."""
    part = own_part(parameter) if part is None else part
    if not is_cut(parameter):
        return part
    flat = gather_over_ranks(part)[: parameter.ds_numel]  # type: ignore[attr-defined]
    return flat.view(parameter.ds_shape)  # type: ignore[attr-defined]


def own_part_of(parameter: nn.Parameter, values: Tensor) -> Tensor:
    """The part, without padding, of whole `values` that this rank keeps of such a parameter."""
    if not is_cut(parameter):
        return values
    size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
    return values.flatten()[own_rank() * size : (own_rank() + 1) * size]


def set_whole(parameter: nn.Parameter, values: Tensor) -> None:
    """Give a parameter these values, float32 in its shape, the same on every rank."""
    put(own_part(parameter), own_part_of(parameter, values))
    drop_whole(parameter)


def put(part: Tensor, values: Tensor) -> None:
    """Copy values to the beginning of a part; its padding stays."""
    with torch.no_grad():
        part.view(-1)[: values.numel()].copy_(values.reshape(-1))


def shape_of(parameter: nn.Parameter) -> torch.Size:
    """The shape that the parameter has when it is whole."""
    return parameter.ds_shape if is_cut(parameter) else parameter.shape  # type: ignore[attr-defined]


def move_towards(averages: list[nn.Parameter], parameters: list[nn.Parameter], rate: float) -> None:
    """average = rate · average + (1 - rate) · parameter, each rank on what it keeps, without a message.

    Parameters are cut alike on both sides.
    """
    with torch.no_grad():
        torch._foreach_lerp_([own_part(each) for each in averages], [own_part(each) for each in parameters], 1 - rate)
    for average in averages:
        drop_whole(average)
