"""DeepSpeed behind a small face: forward, backward, update, whole weights and moments in and out."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rrcm_dist.config.parts import OptimizerConfig, TrainingConfig
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import InvalidInput
from rrcm_dist.training.parameter_groups import ParameterGroup
from rrcm_dist.training.zero.norms import keep_norms_on_device
from rrcm_dist.training.zero.optimizer_state import MOMENTS, set_moments, whole_moments
from rrcm_dist.training.zero.parameters import set_whole, shape_of, whole


class Engine:
    """One network in training: float32 master weights, AdamW, ZeRO stage 0 to 3."""

    def __init__(
        self,
        network: nn.Module,
        groups: Sequence[ParameterGroup],
        optimizer: OptimizerConfig,
        training: TrainingConfig,
        world: World,
    ) -> None:
        if training.batch % world.size:
            raise InvalidInput(f"training.batch {training.batch} is not divisible by {world.size} ranks")
        deepspeed = _import_deepspeed(world)
        self.stage, self._device, self._is_main = training.zero_stage, world.device, world.is_main
        self._factors = [group.lr_factor for group in groups]
        adamw = torch.optim.AdamW(
            [{"params": group.parameters, "weight_decay": group.weight_decay} for group in groups],
            lr=optimizer.lr,
            betas=optimizer.betas,
        )
        self._engine, *_ = deepspeed.initialize(
            model=network.to(world.device), optimizer=adamw, config=_settings(training, world)
        )
        if self.stage:
            keep_norms_on_device(self._engine.optimizer, world.device)

    @property
    def network(self) -> nn.Module:
        """The network within; under stage 3 its parameters are partitioned."""
        return self._engine.module

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """The network's forward; inside torch.no_grad() it leaves no graph."""
        if self.stage == 3:
            _forget_trace(self._engine.optimizer.parameter_offload)
        return self._engine(*inputs, **named)

    def backward(self, scalar: Tensor, last: bool = True) -> None:
        """Add the gradient of `scalar`; `last` marks the step's final backward, after which ranks average."""
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(scalar)

    def update(self, lr: float, clip: float | None) -> Tensor:
        """One AdamW step at learning rate `lr`, with the gradient norm clipped to `clip` if given.

        Returns the global gradient norm before clipping, a scalar on the device. Nothing looks at it here: one that is
        not finite has spoilt the parameters.
        """
        for group, factor in zip(self._engine.optimizer.param_groups, self._factors, strict=True):
            group["lr"] = lr * factor
        if self.stage == 0:
            trained = [p for p in self.network.parameters() if p.requires_grad]
            norm = torch.nn.utils.clip_grad_norm_(trained, clip or float("inf"))
            self._engine.step()
            return norm
        self._engine.optimizer.clip_grad = clip or 0.0
        self._engine.step()
        return torch.as_tensor(self._engine.get_global_grad_norm(), device=self._device)

    def weights(self) -> dict[str, Tensor]:
        """Copies of all parameters and buffers on the CPU, on the main rank; every rank must call it."""
        return whole_weights(self.network, self._is_main)

    def moments(self) -> dict[str, Tensor]:
        """Copies of AdamW's moments, 'exp_avg.NAME' and 'exp_avg_sq.NAME', on the CPU, on the main rank.

        Every rank must call it, after a step.
        """
        copies: dict[str, Tensor] = {}
        for name, values in whole_moments(self._engine):
            if self._is_main:
                copies[name] = values.detach().to("cpu", copy=True)
        return copies

    def load(self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], steps: int, origin: str) -> None:
        """Put in what `weights` and `moments` gave after `steps` steps, in a world of any size at any stage.

        Every rank must call it with the same values. Raises `InvalidInput` where they are of another network, naming
        their `origin`; nothing is changed then.
        """
        _require_fit(self.network, weights, moments, origin)
        set_weights(self.network, weights)
        if self.stage:
            self._engine.optimizer.refresh_fp32_params()
        set_moments(self._engine, moments, steps)


class FrozenNetwork:
    """A network without gradients on the engine's terms: at ZeRO stage 3 cut up over the ranks as a trained one is."""

    def __init__(self, network: nn.Module, training: TrainingConfig, world: World) -> None:
        self.network = network.requires_grad_(False).to(world.device)
        self._engine: Any = None
        if training.zero_stage == 3:
            self._engine, *_ = _import_deepspeed(world).initialize(
                model=self.network, config=_settings(training, world)
            )
            self._engine.train()

    @torch.no_grad()
    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """The network's forward, in training mode."""
        if self._engine is None:
            return self.network(*inputs, **named)
        _forget_trace(self._engine.optimizer)
        return self._engine(*inputs, **named)


def whole_weights(network: nn.Module, wanted: bool) -> dict[str, Tensor]:
    """Copies of all parameters and buffers on the CPU, where `wanted`; every rank must call it."""
    copies: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():
        values = whole(parameter)
        if wanted:
            copies[name] = values.detach().to("cpu", copy=True)
    if wanted:
        copies.update((name, buffer.detach().to("cpu", copy=True)) for name, buffer in network.named_buffers())
    return copies


def set_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put in what `whole_weights` gave; the same on every rank."""
    for name, parameter in network.named_parameters():
        set_whole(parameter, weights[name].to(parameter.device))
    for name, buffer in network.named_buffers():
        buffer.copy_(weights[name])


def _require_fit(network: nn.Module, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], origin: str) -> None:
    for name, parameter in network.named_parameters():
        needed = [(name, weights), *((f"{moment}.{name}", moments) for moment in MOMENTS if parameter.requires_grad)]
        for what, tensors in needed:
            if what not in tensors or tensors[what].shape != shape_of(parameter):
                there = tuple(tensors[what].shape) if what in tensors else "nothing"
                raise InvalidInput(
                    f"{origin} is of another network: {what} has {there} there, {tuple(shape_of(parameter))} here"
                )


def _settings(training: TrainingConfig, world: World) -> dict[str, Any]:
    return {
        "train_batch_size": training.batch,
        "train_micro_batch_size_per_gpu": training.batch // world.size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,
        "steps_per_print": 2**31,
        "zero_optimization": {
            "stage": training.zero_stage,
            "stage3_param_persistence_threshold": training.persistence_threshold,
        },
        "zero_allow_untested_optimizer": True,
    }


def _forget_trace(parameter_offload: Any) -> None:
    """A step mixes forward passes of several kinds; DeepSpeed records one kind and takes another for an error."""
    coordinator = parameter_offload.get_param_coordinator()
    if not coordinator.is_invalid_trace():
        coordinator._invalidate_trace()


def _import_deepspeed(world: World) -> Any:
    """Import DeepSpeed for the world's device, quietly, without letting it compile anything."""
    os.environ.setdefault("LOCAL_RANK", str(world.local_rank))  # DeepSpeed insists on it, also where there is one rank
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    if world.device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed
    from deepspeed.ops import __compatible_ops__ as compatible_ops
    from deepspeed.runtime.zero import partitioned_param_coordinator

    if world.device.type == "cpu":
        # DeepSpeed would spend a minute compiling a shared-memory all-reduce at the first run.
        compatible_ops["deepspeed_shm_comm"] = False
    # At stage 3 it has the ranks compare every trace that is not complete, while their hosts wait: at each pass, as
    # `_forget_trace` leaves none complete.
    partitioned_param_coordinator.assert_ints_same_as_other_ranks = lambda ints: None
    return deepspeed
