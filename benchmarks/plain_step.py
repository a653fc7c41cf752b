"""A pre-training step written out plainly, as the peer of ours: the same loss, one pass after the other.

It does what the method's description shows and a first implementation would do: six separate passes through encoder
and projector, the graph of every online pass kept until the backward, torch's batch norm and AdamW, no engine.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.distributed.batch_norm import GlobalBatchNorm
from rrcm_dist.models.rrcm import PretrainingNetwork, autocast


class PlainStep:
    """Networks, optimiser and one step."""

    def __init__(self, recipe: PretrainConfig, device: torch.device) -> None:
        self._recipe, self._device = recipe, device
        network = PretrainingNetwork(recipe.encoder, recipe.projector, recipe.noise, recipe.seed)
        network.projector = nn.Sequential(*map(_with_torchs_batch_norm, network.projector))
        self.online = network.to(device)
        self.target = copy.deepcopy(network).requires_grad_(False)
        trained = [p for p in self.online.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, lr=recipe.optimizer.lr)

    def __call__(self, a: Tensor, b: Tensor, x: Tensor, z: Tensor, levels: tuple[float, float, float]) -> Tensor:
        """One update on float32 [-1, 1] views; `levels` are t_min, t_i and t_(i+1). Returns the loss, on the device."""
        t_min, t_noisier, t_less_noisy = levels
        with autocast(self._recipe.training.precision, self._device):
            noisy_a, noisy_b = a + t_min * z, b + t_min * z
            contrastive = self._nce(self._project(self.online, noisy_a, t_min)[0], self._key(noisy_b, t_min))
            contrastive += self._nce(self._project(self.online, noisy_b, t_min)[0], self._key(noisy_a, t_min))
            noisier = self._project(self.online, x + t_noisier * z, t_noisier)[1]
            less_noisy = self._project(self.online, x + t_less_noisy * z, t_less_noisy)[1].detach()
            loss = (contrastive + self._nce(noisier, less_noisy)).mean()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        with torch.no_grad():
            for target, online in zip(self.target.parameters(), self.online.parameters(), strict=True):
                target.mul_(0.99).add_(online, alpha=0.01)
        return loss.detach()

    def _project(self, network: nn.Module, images: Tensor, t: float) -> tuple[Tensor, Tensor]:
        representation = network.encoder(images, torch.full((len(images),), t, device=self._device))
        return network.projector(representation), representation

    @torch.no_grad()
    def _key(self, images: Tensor, t: float) -> Tensor:
        return self._project(self.target, images, t)[0]

    def _nce(self, queries: Tensor, keys: Tensor) -> Tensor:
        logits = F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T / self._recipe.temperature
        return torch.logsumexp(logits.float(), dim=1) - logits.diagonal()


def _with_torchs_batch_norm(layer: nn.Module) -> nn.Module:
    return nn.BatchNorm1d(layer.weight.shape[0]) if isinstance(layer, GlobalBatchNorm) else layer
