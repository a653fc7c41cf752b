"""CoSENT over graded pairs of representations beside rRCM's own InfoNCE: the batch balance loss in pre-training."""

import math

import torch
from torch import Tensor

from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.data.batches import PretrainingBatch
from rrcm_dist.distributed.world import World
from rrcm_dist.objectives.batch_balance import GradedPairs, cosent_loss
from rrcm_dist.objectives.contrastive import Negatives
from rrcm_dist.objectives.pretraining import PretrainingKeys
from rrcm_dist.training.additions.addition import Addition, Outputs
from rrcm_dist.training.noise_draws import pretraining_levels


class BatchBalanceAddition(Addition):
    """β · CoSENT; the contrastive terms, with the hard negatives of all ranks where there are any, are rRCM's."""

    def __init__(self, recipe: PretrainConfig, total_steps: int, world: World) -> None:
        """See `Addition`."""
        config = recipe.additions.batch_balance
        assert config is not None
        self._recipe, self._config, self._total_steps, self._world = recipe, config, total_steps, world
        self._temperature = config.temperature or recipe.temperature
        self._less_noisy: Tensor | None = None
        self._ordinal = torch.zeros(())

    def negatives(self, batch: PretrainingBatch, keys: PretrainingKeys, step: int) -> Negatives | None:
        """None of its own; remembers this rank's representations of view Q."""
        first = self._world.rank * len(batch.rows)
        self._less_noisy = keys.less_noisy[first : first + len(batch.rows)]
        return None

    def batch_loss(self, outputs: Outputs, batch: PretrainingBatch, step: int) -> Tensor | None:
        """β · CoSENT over the pairs of all ranks; see `Addition`."""
        with torch.autocast(self._world.device.type, enabled=False):
            by_noise = self._config.grades == "noise_gap"
            pairs = self._by_noise(outputs, step) if by_noise else self._by_overlap(outputs, batch)
            loss = cosent_loss(pairs, self._temperature)
        self._ordinal = loss.detach()
        return self._config.beta * loss

    def parts(self) -> dict[str, Tensor]:
        """CoSENT, unweighted; see `Addition`."""
        return {"cosent": self._ordinal}

    def _by_noise(self, outputs: Outputs, step: int) -> GradedPairs:
        """5n pairs of representations of one image; the grade falls with the gap of their levels in log t."""
        assert self._less_noisy is not None
        levels = pretraining_levels(self._recipe, step, self._total_steps)
        view_a, view_b, noisier = outputs.representations
        less_noisy = self._less_noisy
        whole, rest = math.log(levels.noisier / levels.t_min), math.log(levels.less_noisy / levels.t_min)
        pairs = [
            (noisier, less_noisy, whole - rest),
            (view_a, noisier, whole),
            (view_b, noisier, whole),
            (view_a, less_noisy, rest),
            (view_b, less_noisy, rest),
        ]
        # Filled on the device: an upload would wait for it.
        grades = [torch.full((len(first),), -gap, device=first.device) for first, _, gap in pairs]
        firsts, seconds = torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])
        return GradedPairs(firsts, seconds, torch.cat(grades))

    def _by_overlap(self, outputs: Outputs, batch: PretrainingBatch) -> GradedPairs:
        """n pairs of views A and B; the grade is how far their crops overlap."""
        crops = batch.crops.to(self._world.device, non_blocking=True)
        view_a, view_b, _ = outputs.representations
        return GradedPairs(view_a, view_b, crop_overlap(crops[:, 0], crops[:, 1]))


def crop_overlap(first: Tensor, second: Tensor) -> Tensor:
    """(n, 4) boxes (top, left, height, width) each → (n,) float32 intersection over union, in [0, 1]."""
    first, second = first.float(), second.float()
    low = torch.maximum(first[:, :2], second[:, :2])
    high = torch.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=1)
    return shared / (first[:, 2:].prod(dim=1) + second[:, 2:].prod(dim=1) - shared)
