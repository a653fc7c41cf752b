"""A pre-training step as the released rRCM code (jiachenlei/rRCM) makes it, on one device; the peer of ours.

Its passes: online(A), target(B), online(B), target(A), online(P), online(Q), each of its own and each through the
projector; the graph of Q is kept until the backward, though nothing flows back through it. Its state: three networks
(online, average, target), AdamW, and on a GPU float16 autocast with a gradient scaler that grows every step. Around the
update: clipping as after the warm-up, both averages parameter by parameter, and the norms it logs, which wait for the
device.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.released_network import ReleasedNetwork
from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.noise import input_scale, time_condition

AVERAGE_RATE = 0.99
TARGET_RATE = 0.99


class ReleasedStep:
    """Networks, optimiser and one step."""

    def __init__(
        self, recipe: PretrainConfig, weights: dict[str, Tensor], device: torch.device, compiled: bool = False
    ) -> None:
        """`weights`: of a `PretrainingNetwork`, where all three networks start. `compiled`: blocks by torch.compile,
        which the released code does not do."""
        self._recipe, self._device, self._compiled = recipe, device, compiled
        self.online, self._average, self._target = (self._network(weights) for _ in range(3))
        self._target.requires_grad_(False)
        optimizer = recipe.optimizer
        # The released code hands over the frozen patch embedding, too; it has no gradient.
        self._optimizer = torch.optim.AdamW(
            self.online.parameters(), lr=optimizer.lr, betas=optimizer.betas, weight_decay=optimizer.weight_decay
        )
        self._scaler = torch.amp.GradScaler(
            device.type,
            init_scale=2**14,
            growth_factor=1.0006933874625807,
            growth_interval=1,
            enabled=device.type == "cuda",
        )

    def __call__(self, x: Tensor, a: Tensor, b: Tensor, levels: tuple[float, float, float], z: Tensor) -> float:
        """One update on float32 [-1, 1] views and noise z; `levels` are t_min, t_i and t_(i+1). Returns the loss."""
        self._optimizer.zero_grad()
        with torch.autocast(self._device.type, torch.float16, enabled=self._device.type == "cuda"):
            loss = self._loss(x, a, b, levels, z)
        self._scaler.scale(loss).backward()
        if self._recipe.optimizer.clip:
            self._scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(self.online.parameters(), self._recipe.optimizer.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        _average(self._average, self.online, AVERAGE_RATE)
        _average(self._target, self.online, TARGET_RATE)
        _log_norms(self.online)
        return float(loss.detach())

    def _loss(self, x: Tensor, a: Tensor, b: Tensor, levels: tuple[float, float, float], z: Tensor) -> Tensor:
        t_min, t_noisier, t_less_noisy = levels
        noisy_a, noisy_b = a + z * t_min, b + z * t_min
        contrastive = self._nce(self._pass(self.online, noisy_a, t_min)[0], self._target_projection(noisy_b, t_min))
        contrastive += self._nce(self._pass(self.online, noisy_b, t_min)[0], self._target_projection(noisy_a, t_min))
        noisier, less_noisy = x + z * t_noisier, x + z * t_less_noisy
        representation = self._pass(self.online, noisier, t_noisier)[1]
        key = self._pass(self.online, less_noisy, t_less_noisy)[1].detach()
        return (contrastive + self._nce(representation, key)).mean()

    def _network(self, weights: dict[str, Tensor]) -> ReleasedNetwork:
        network = ReleasedNetwork(self._recipe.encoder, self._recipe.projector, self._device)
        network.load(weights)
        if self._compiled:
            for block in network.blocks:
                block.compile(dynamic=False)
        return network.to(self._device)

    def _pass(self, network: nn.Module, images: Tensor, level: float) -> tuple[Tensor, Tensor]:
        t = torch.full((len(images),), level, device=self._device)
        scale = input_scale(t, self._recipe.noise.sigma_data)[:, None, None, None]
        projection, representation = network(scale * images, time_condition(t))
        return projection.float(), representation.float()

    @torch.no_grad()
    def _target_projection(self, images: Tensor, level: float) -> Tensor:
        return self._pass(self._target, images, level)[0]

    def _nce(self, queries: Tensor, keys: Tensor) -> Tensor:
        temperature = self._recipe.temperature
        logits = torch.einsum("nc,ck->nk", F.normalize(queries, dim=1), F.normalize(keys, dim=1).T)
        return torch.logsumexp(logits.float() / temperature, dim=1) - logits.diagonal() / temperature


@torch.no_grad()
def _average(average: nn.Module, online: nn.Module, rate: float) -> None:
    sources = dict(online.named_parameters())
    for name, parameter in average.named_parameters():
        parameter.mul_(rate).add_(sources[name], alpha=1 - rate)


@torch.no_grad()
def _log_norms(network: nn.Module) -> None:
    for parameter in network.parameters():
        if parameter.grad is not None:
            parameter.norm().item()
            parameter.grad.norm().item()
