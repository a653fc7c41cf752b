"""A step of pre-training: the rRCM loss over the exact global batch, whatever fits in memory (gradient caching)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.data.batches import PretrainingBatch
from rrcm_dist.data.photometric import apply_photometric
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import InvalidInput
from rrcm_dist.models.attention import use_attention
from rrcm_dist.models.encoder import run_blocks
from rrcm_dist.models.rrcm import PretrainingNetwork
from rrcm_dist.objectives.pretraining import PretrainingKeys, pretraining_loss
from rrcm_dist.schedules import target_rate
from rrcm_dist.training.checkpointing.checkpoints import read_network, read_resume_state
from rrcm_dist.training.noise_draws import pretraining_levels, training_noise
from rrcm_dist.training.parameter_groups import one_group
from rrcm_dist.training.watching.probe import LinearProbe
from rrcm_dist.training.zero.averages import WeightAverages
from rrcm_dist.training.zero.engine import Engine
from rrcm_dist.training.zero.target import TargetNetwork


class PretrainingStep:
    """Online and target network, and what a step does to them. Passes per image: 3 with gradient, 1 + 2 without."""

    trained = "online"

    def __init__(
        self, recipe: PretrainConfig, total_steps: int, world: World, probe: LinearProbe | None = None
    ) -> None:
        """`probe`: learns from the step's representations, if there is one."""
        self._recipe, self._total_steps, self._world, self._probe = recipe, total_steps, world, probe
        settings = recipe.training
        network = PretrainingNetwork(recipe.encoder, recipe.projector, recipe.noise, recipe.seed, settings.precision)
        use_attention(network, settings.attention, world.device)
        run_blocks(network, settings.activation_checkpointing, settings.compile)
        self._target = TargetNetwork(network, settings, world)
        groups = one_group(network, recipe.optimizer.weight_decay)
        self.engine = Engine(network, groups, recipe.optimizer, settings, world)
        self.averages = WeightAverages(self.engine, settings.averages)

    def backward(self, batch: PretrainingBatch, step: int) -> dict[str, Tensor]:
        """Gradients of the step's loss: the first micro-batch with its graph, the others by their cached gradients.

        The first micro-batch keeps its graph and passes projector and loss together with the others' representations,
        which are encoded without a graph; then each other is encoded again and receives its gradient. The result is the
        gradient of the whole batch; the first backward touches every parameter, as ZeRO stage 3 needs.
        """
        views = NoisyViews(batch, step, self._total_steps, self._recipe, self._world)
        first, *others = self._micro_batches(len(batch.rows))
        keys = self._begin_keys(views, [first, *others])
        cached = self._encode_without_graph(views, others)
        representations, projections = self.engine(*views.online(first), others=cached, project=2)
        loss = pretraining_loss(projections, representations[2], keys, self._recipe.temperature)
        self.engine.backward(loss.mean, last=not others)
        if cached is not None:
            self._push_cached_gradients(views, others, cached)
        parts = {"contrastive": loss.contrastive.mean(), "consistency": loss.consistency.mean()}
        if self._probe is not None:
            parts |= self._probe.learn(representations[0], batch.labels.to(self._world.device, non_blocking=True))
        return {"loss": loss.mean, **parts}

    def describe(self, step: int) -> dict[str, Any]:
        """Noise levels of a step."""
        levels = pretraining_levels(self._recipe, step, self._total_steps)
        return {"noise_index": levels.index, "noisier_t": levels.noisier, "less_noisy_t": levels.less_noisy}

    def after_update(self, step: int) -> None:
        """Move the target's parameters towards the online ones; its batch norms have statistics of their own."""
        self._target.follow(self.engine.network, target_rate(step, self._total_steps, self._recipe.target))

    def networks(self) -> dict[str, dict[str, Tensor]]:
        """Online and target network; see `Step`."""
        return {"online": self.engine.weights(), "target": self._target.weights()}

    def resume_state(self) -> dict[str, dict[str, Tensor]]:
        """The probe with its optimiser; see `Step`."""
        if self._probe is None:
            return {}
        # Copied: it is written while the next steps move it.
        return {"probe": {name: value.to("cpu", copy=True) for name, value in self._probe.state().items()}}

    def load(self, checkpoint: Path) -> None:
        """The target network and the probe of a checkpoint; a probe that was not there then begins now."""
        target = read_network(checkpoint, "target")
        if target is None:
            raise InvalidInput(f"{checkpoint} holds no target network: it is not of a pre-training run")
        self._target.load(target)
        probe = read_resume_state(checkpoint, "probe")
        if self._probe is not None and probe is not None:
            self._probe.load(probe)

    def _micro_batches(self, rows: int) -> list[slice]:
        size = self._recipe.training.micro_batch or rows
        return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]

    @torch.no_grad()
    def _begin_keys(self, views: "NoisyViews", micro_batches: list[slice]) -> PretrainingKeys:
        """Target projections of views A and B, and online representations of view Q, on their way to every rank."""
        first, *others = micro_batches
        encoded = [self._target(*views.target(rows))[0] for rows in others]
        rest = torch.cat(encoded, dim=1) if others else None
        keys = PretrainingKeys(self._target(*views.target(first), others=rest, project=2)[1])
        less_noisy = [self.engine(*views.less_noisy(rows))[0][0] for rows in micro_batches]
        keys.add_less_noisy(torch.cat(less_noisy))
        return keys

    @torch.no_grad()
    def _encode_without_graph(self, views: "NoisyViews", micro_batches: list[slice]) -> Tensor | None:
        """(3, rows, D) online representations, as a leaf that gathers their gradient."""
        if not micro_batches:
            return None
        encoded = [self.engine(*views.online(rows))[0] for rows in micro_batches]
        return torch.cat(encoded, dim=1).requires_grad_(True)

    def _push_cached_gradients(self, views: "NoisyViews", micro_batches: list[slice], cached: Tensor) -> None:
        assert cached.grad is not None
        offset = micro_batches[0].start
        for rows in micro_batches:
            representations, _ = self.engine(*views.online(rows))
            gradient = cached.grad[:, rows.start - offset : rows.stop - offset]
            self.engine.backward((representations * gradient).sum(), last=rows is micro_batches[-1])


class NoisyViews:
    """The noisy views of a rank's rows at one step; one noise tensor and one pair of levels for all of them.

    Each method takes rows and gives (views, rows, 3, H, W) float32 with their levels t (views,): `online` A, B and P,
    `target` A and B, `less_noisy` Q.
    """

    def __init__(
        self, batch: PretrainingBatch, step: int, total_steps: int, recipe: PretrainConfig, world: World
    ) -> None:
        self._device = world.device
        levels = pretraining_levels(recipe, step, total_steps)
        self._t_min, self._t_noisier, self._t_less_noisy = levels.t_min, levels.noisier, levels.less_noisy
        self._noise = training_noise(recipe, world, step, batch.plain.shape)
        self._plain = self._to_device(batch.plain)
        self._a = self._augmented(batch.view_a, batch.photometric_a)
        self._b = self._augmented(batch.view_b, batch.photometric_b)

    def online(self, rows: slice) -> tuple[Tensor, Tensor]:
        """A and B at t_min, P at t_i."""
        views = torch.stack([self._a[rows], self._b[rows], self._noisy_plain(rows, self._t_noisier)])
        return views, self._levels(self._t_min, self._t_min, self._t_noisier)

    def target(self, rows: slice) -> tuple[Tensor, Tensor]:
        """A and B at t_min."""
        return torch.stack([self._a[rows], self._b[rows]]), self._levels(self._t_min, self._t_min)

    def less_noisy(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Q at t_(i+1)."""
        return self._noisy_plain(rows, self._t_less_noisy)[None], self._levels(self._t_less_noisy)

    def _augmented(self, view: Tensor, photometric: Tensor) -> Tensor:
        images = apply_photometric(self._to_device(view), photometric)
        return images.add_(self._noise, alpha=self._t_min)

    def _noisy_plain(self, rows: slice, t: float) -> Tensor:
        return self._plain[rows].float().div_(127.5).sub_(1).add_(self._noise[rows], alpha=t)

    def _levels(self, *t: float) -> Tensor:
        # Filled on the device: an upload would wait for it.
        return torch.stack([torch.full((), level, device=self._device) for level in t])

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)
