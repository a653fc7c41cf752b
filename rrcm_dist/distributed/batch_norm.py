"""Batch norm over the global batch, on CPU and CUDA alike (torch's SyncBatchNorm refuses CPU tensors)."""

import torch
from torch import Tensor, nn

from rrcm_dist.distributed.collectives import ranks, sum_over_ranks


class GlobalBatchNorm(nn.Module):
    """Batch norm of (views, n, features): statistics of each view over its n rows on every rank, n equal on all.

    In training the statistics are computed in float32 and are differentiable across ranks; the running ones are updated
    view after view. In evaluation the running statistics are used. Parameters and buffers bear torch's names.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        """(views, n, features) → the same shape, in float32."""
        x = x.float()
        if not self.training:
            scale = self.weight * torch.rsqrt(self.running_var + self.eps)
            return (x - self.running_mean) * scale + self.bias
        rows = x.shape[1] * ranks()
        if rows < 2:
            raise ValueError("batch norm in training needs at least two rows over all ranks")
        mean = sum_over_ranks(x.sum(dim=1)) / rows
        centred = x - mean[:, None]
        variance = sum_over_ranks(centred.square().sum(dim=1)) / rows
        self._track(mean, variance * (rows / (rows - 1)))
        return centred * (torch.rsqrt(variance + self.eps) * self.weight)[:, None] + self.bias

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        for view_mean, view_variance in zip(mean, unbiased_variance, strict=True):
            self.running_mean.lerp_(view_mean, self.momentum)
            self.running_var.lerp_(view_variance, self.momentum)
            self.num_batches_tracked += 1
