"""The views of a pre-training step with their noise, on the device."""

import torch
from torch import Tensor

from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.data.batches import PretrainingBatch
from rrcm_dist.data.photometric import apply_photometric
from rrcm_dist.distributed.world import World
from rrcm_dist.training.noise_draws import pretraining_levels, training_noise


def clean_pixels(images: Tensor) -> Tensor:
    """uint8 images → float32 pixels in [-1, 1]."""
    return images.float().div_(127.5).sub_(1)


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

    def clean(self, rows: slice) -> Tensor:
        """(rows, 3, H, W) float32: the plain view without noise, pixels in [-1, 1]."""
        return clean_pixels(self._plain[rows])

    def _augmented(self, view: Tensor, photometric: Tensor) -> Tensor:
        images = apply_photometric(self._to_device(view), photometric)
        return images.add_(self._noise, alpha=self._t_min)

    def _noisy_plain(self, rows: slice, t: float) -> Tensor:
        return self.clean(rows).add_(self._noise[rows], alpha=t)

    def _levels(self, *t: float) -> Tensor:
        # Filled on the device: an upload would wait for it.
        return torch.stack([torch.full((), level, device=self._device) for level in t])

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)
