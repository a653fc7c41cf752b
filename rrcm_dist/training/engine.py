"""DeepSpeed behind a small face: forward, backward, update, whole weights, state in and out."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rrcm_dist.config.parts import OptimizerConfig, TrainingConfig
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.training.parameter_groups import ParameterGroup

STATE_TAG = "deepspeed"
"""Folder within a checkpoint that holds DeepSpeed's files."""


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
        self._deepspeed = _import_deepspeed(world)
        self.stage, self._device, self._is_main = training.zero_stage, world.device, world.is_main
        self._factors = [group.lr_factor for group in groups]
        adamw = torch.optim.AdamW(
            [{"params": group.parameters, "weight_decay": group.weight_decay} for group in groups],
            lr=optimizer.lr,
            betas=optimizer.betas,
        )
        self._engine, *_ = self._deepspeed.initialize(
            model=network.to(world.device),
            optimizer=adamw,
            config={
                "train_batch_size": training.batch,
                "train_micro_batch_size_per_gpu": training.batch // world.size,
                "gradient_accumulation_steps": 1,
                "gradient_clipping": 0.0,
                "steps_per_print": 2**31,
                "zero_optimization": {"stage": training.zero_stage},
                "zero_allow_untested_optimizer": True,
            },
        )

        self._catch_failing_writes()

    @property
    def network(self) -> nn.Module:
        """The network within; under stage 3 its parameters are partitioned."""
        return self._engine.module

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """The network's forward; inside torch.no_grad() it leaves no graph."""
        if self.stage == 3:
            self._forget_trace()
        return self._engine(*inputs, **named)

    def backward(self, scalar: Tensor, last: bool = True) -> None:
        """Add the gradient of `scalar`; `last` marks the step's final backward, after which ranks average."""
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(scalar)

    def update(self, lr: float, clip: float | None) -> Tensor:
        """One AdamW step at learning rate `lr`, with the gradient norm clipped to `clip` if given.

        Returns the global gradient norm before clipping, a scalar on the device; where it is not finite, stages 1 to 3
        have left the parameters as they were.
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

    def network_bytes(self) -> int:
        """Bytes of all parameters in float32, the partitioned ones of stage 3 counted whole."""
        return sum(4 * getattr(p, "ds_numel", p.numel()) for p in self.network.parameters())

    def with_whole_parameters(self, use: Callable[[], None]) -> None:
        """Call `use` while every parameter is whole on every rank."""
        if self.stage == 3:
            parameters = list(self.network.parameters())
            with self._deepspeed.zero.GatheredParameters(parameters, modifier_rank=None):
                use()
        else:
            use()

    def weights(self) -> dict[str, Tensor]:
        """Copies of all parameters and buffers on the CPU, on the main rank; every rank must call it."""
        copies: dict[str, Tensor] = {}

        def copy() -> None:
            if self._is_main:
                copies.update((name, value.detach().cpu().clone()) for name, value in self.network.state_dict().items())

        self.with_whole_parameters(copy)
        return copies

    def save_state(self, folder: Path) -> None:
        """Write parameters and optimiser state to `folder`/deepspeed; every rank must call it."""
        self._write_failure: Exception | None = None
        self._engine.save_checkpoint(str(folder), tag=STATE_TAG, save_latest=False)
        if self._write_failure is not None:
            raise self._write_failure

    def _forget_trace(self) -> None:
        """A step mixes forward passes of several kinds; DeepSpeed records one kind and takes another for an error."""
        coordinator = self._engine.optimizer.parameter_offload.get_param_coordinator()
        if not coordinator.is_invalid_trace():
            coordinator._invalidate_trace()

    def _catch_failing_writes(self) -> None:
        """Hold back what a write raises until `save_state` is through.

        DeepSpeed has barriers behind its writes: a rank that raised before them would leave the others waiting.
        """
        writer = self._engine.checkpoint_engine
        write_file = writer.save

        def save(*arguments: Any, **named: Any) -> None:
            try:
                write_file(*arguments, **named)
            except (OSError, RuntimeError) as error:
                self._write_failure = error

        writer.save = save
        # It would write a conversion script into every checkpoint; the whole weights lie beside it anyway.
        self._engine._copy_recovery_script = lambda folder: None

    def load_state(self, folder: Path) -> None:
        """Read what `save_state` wrote with the same number of ranks and stage."""
        loaded, _ = self._engine.load_checkpoint(str(folder), tag=STATE_TAG, load_lr_scheduler_states=False)
        if loaded is None:
            raise RunFailure(
                f"DeepSpeed could not load {folder / STATE_TAG}; move {folder} away to use the one before it"
            )


def _import_deepspeed(world: World) -> Any:
    """Import DeepSpeed for the world's device, quietly, without letting it compile anything."""
    os.environ.setdefault("LOCAL_RANK", str(world.local_rank))  # DeepSpeed insists on it, also where there is one rank
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    if world.device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed
    from deepspeed.ops import __compatible_ops__ as compatible_ops

    if world.device.type == "cpu":
        # DeepSpeed would spend a minute compiling a shared-memory all-reduce at the first run.
        compatible_ops["deepspeed_shm_comm"] = False
    return deepspeed
