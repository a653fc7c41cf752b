"""A step of pre-training: the rRCM loss over the exact global batch, whatever fits in memory (gradient caching)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.data.batches import PretrainingBatch
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import InvalidInput
from rrcm_dist.models.attention import use_attention
from rrcm_dist.models.encoder import run_blocks
from rrcm_dist.models.rrcm import PretrainingNetwork
from rrcm_dist.objectives.contrastive import Negatives
from rrcm_dist.objectives.pretraining import KeysOnTheirWay, PretrainingKeys, pretraining_loss
from rrcm_dist.schedules import target_rate
from rrcm_dist.training.additions.addition import Addition, Outputs
from rrcm_dist.training.checkpointing.checkpoints import read_network, read_resume_state
from rrcm_dist.training.noise_draws import pretraining_levels
from rrcm_dist.training.noisy_views import NoisyViews
from rrcm_dist.training.parameter_groups import one_group
from rrcm_dist.training.watching.probe import LinearProbe
from rrcm_dist.training.zero.averages import WeightAverages
from rrcm_dist.training.zero.engine import Engine
from rrcm_dist.training.zero.target import TargetNetwork


class PretrainingStep:
    """Online and target network, and what a step does to them. Passes per image: 3 with gradient, 1 + 2 without."""

    trained = "online"

    def __init__(
        self,
        recipe: PretrainConfig,
        total_steps: int,
        world: World,
        probe: LinearProbe | None = None,
        additions: Sequence[Addition] = (),
    ) -> None:
        """`probe`: learns from the step's representations, if there is one; `additions`: what rRCM has not."""
        self._recipe, self._total_steps, self._world, self._probe = recipe, total_steps, world, probe
        self._additions = additions
        settings = recipe.training
        network = PretrainingNetwork(recipe.encoder, recipe.projector, recipe.noise, recipe.seed, settings.precision)
        use_attention(network, settings.attention, world.device)
        run_blocks(network, settings.activation_checkpointing, settings.compile)
        for addition in additions:
            addition.start(network)
        self._target = TargetNetwork(network, settings, world)
        for addition in additions:
            addition.attach(network)
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
        on_their_way = self._begin_keys(views, [first, *others])
        cached = self._encode_without_graph(views, others)
        outputs, of_heads = self._encode_first(views, first, cached)
        keys = on_their_way.wait()
        negatives = self._negatives(batch, keys, step)
        loss = pretraining_loss(
            outputs.projections, outputs.representations[2], keys, self._recipe.temperature, negatives
        )
        of_batch = loss.mean
        for addition in self._additions:
            term = addition.batch_loss(outputs, batch, step)
            of_batch = of_batch if term is None else of_batch + term
        weights = self._head_weights(step)
        heads = _shares(of_heads, len(batch.rows))
        self.engine.backward(of_batch + _weighted(heads, weights), last=not others)
        if cached is not None:
            of_others = self._push_cached_gradients(views, others, cached, weights)
            heads = {name: share.detach() + of_others[name] for name, share in heads.items()}
        total = (of_batch + _weighted(heads, weights)).detach()
        parts = {"contrastive": loss.contrastive.mean(), "consistency": loss.consistency.mean(), **heads}
        for addition in self._additions:
            parts |= addition.parts()
        if self._probe is not None:
            labels = batch.labels.to(self._world.device, non_blocking=True)
            parts |= self._probe.learn(outputs.representations[0], labels)
        return {"loss": total, **parts}

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
        """The probe with its optimiser, and what additions keep; see `Step`."""
        state: dict[str, dict[str, Tensor]] = {}
        if self._probe is not None:
            # Copied: it is written while the next steps move it.
            state["probe"] = {name: value.to("cpu", copy=True) for name, value in self._probe.state().items()}
        for addition in self._additions:
            state |= addition.resume_state()
        return state

    def load(self, checkpoint: Path) -> None:
        """The target network and the probe of a checkpoint; a probe that was not there then begins now."""
        target = read_network(checkpoint, "target")
        if target is None:
            raise InvalidInput(f"{checkpoint} holds no target network: it is not of a pre-training run")
        self._target.load(target)
        probe = read_resume_state(checkpoint, "probe")
        if self._probe is not None and probe is not None:
            self._probe.load(probe)
        for addition in self._additions:
            addition.load(checkpoint)

    def _micro_batches(self, rows: int) -> list[slice]:
        size = self._recipe.training.micro_batch or rows
        return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]

    @torch.no_grad()
    def _begin_keys(self, views: NoisyViews, micro_batches: list[slice]) -> KeysOnTheirWay:
        """Target projections of views A and B, and online representations of view Q, on their way to every rank."""
        first, *others = micro_batches
        encoded = [self._target(*views.target(rows))[0] for rows in others]
        rest = torch.cat(encoded, dim=1) if others else None
        keys = KeysOnTheirWay(self._target(*views.target(first), others=rest, project=2)[1])
        less_noisy = [self.engine(*views.less_noisy(rows))[0][0] for rows in micro_batches]
        keys.add_less_noisy(torch.cat(less_noisy))
        return keys

    @torch.no_grad()
    def _encode_without_graph(self, views: NoisyViews, micro_batches: list[slice]) -> Tensor | None:
        """(3, rows, D) online representations, as a leaf that gathers their gradient."""
        if not micro_batches:
            return None
        encoded = [self.engine(*views.online(rows))[0] for rows in micro_batches]
        return torch.cat(encoded, dim=1).requires_grad_(True)

    def _encode_first(
        self, views: NoisyViews, rows: slice, cached: Tensor | None
    ) -> tuple[Outputs, Mapping[str, Tensor]]:
        """What the network makes of the whole batch, with the graph of its first micro-batch, and that one's losses of
        heads."""
        representations, projections, of_heads = self.engine(
            *views.online(rows), others=cached, project=2, head_inputs=self._head_inputs(views, rows)
        )
        return Outputs(representations, projections), of_heads

    def _push_cached_gradients(
        self, views: NoisyViews, micro_batches: list[slice], cached: Tensor, weights: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """Give each micro-batch its gradient; returns all of these' share in the mean loss of each head."""
        assert cached.grad is not None
        offset, whole = micro_batches[0].start, micro_batches[-1].stop
        of_heads = dict.fromkeys(weights, torch.zeros((), device=cached.device))
        for rows in micro_batches:
            representations, _, losses = self.engine(*views.online(rows), head_inputs=self._head_inputs(views, rows))
            gradient = cached.grad[:, rows.start - offset : rows.stop - offset]
            shares = _shares(losses, whole)
            term = (representations * gradient).sum() + _weighted(shares, weights)
            self.engine.backward(term, last=rows is micro_batches[-1])
            of_heads = {name: before + shares[name].detach() for name, before in of_heads.items()}
        return of_heads

    def _negatives(self, batch: PretrainingBatch, keys: PretrainingKeys, step: int) -> Negatives | None:
        found = [addition.negatives(batch, keys, step) for addition in self._additions]
        return Negatives.joined([negatives for negatives in found if negatives is not None])

    def _head_inputs(self, views: NoisyViews, rows: slice) -> dict[str, Tensor]:
        return {
            name: inputs for addition in self._additions for name, inputs in addition.head_inputs(views, rows).items()
        }

    def _head_weights(self, step: int) -> dict[str, float]:
        return {name: weight for addition in self._additions for name, weight in addition.head_weights(step).items()}


def _shares(losses: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
    """Share of some rows' losses of heads in the means over all the rank's rows."""
    return {name: of_rows.sum() / rows for name, of_rows in losses.items()}


def _weighted(shares: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor | float:
    return sum((weights[name] * share for name, share in shares.items()), 0.0)
