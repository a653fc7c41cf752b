"""Rows keyed by sample id, dealt out over ranks: rank r of R holds those of the ids r, r + R, r + 2R …

Only one rank holds a row, so that a sum over ranks, to which the others give zeros, is the row to the bit.
"""

import torch
from torch import Tensor

from rrcm_dist.distributed.collectives import own_rank, ranks, sum_over_ranks

ROWS_AT_A_TIME = 65536
"""Rows that are fetched together where all are needed: 64 MiB at 256 float32 numbers a row."""


class ShardedRows:
    """(samples, width) numbers of any dtype; every rank calls every method, with the same ids."""

    def __init__(self, samples: int, width: int, dtype: torch.dtype, device: torch.device, fill: float = 0) -> None:
        """All rows begin as `fill`."""
        self.samples, self._ranks, self._rank = samples, ranks(), own_rank()
        self._held = -(-samples // self._ranks)
        # One row more, where what belongs to other ranks is put: choosing one's own would make the host wait.
        self._rows = torch.full((self._held + 1, width), fill, dtype=dtype, device=device)

    @property
    def own(self) -> Tensor:
        """(held, width): this rank's rows themselves, to be read or written in place; those of `own_ids`."""
        return self._rows[: len(range(self._rank, self.samples, self._ranks))]

    @property
    def own_ids(self) -> Tensor:
        """(held,) int64 sample ids of this rank's rows."""
        return torch.arange(self._rank, self.samples, self._ranks, device=self._rows.device)

    @torch.no_grad()
    def put(self, sample_ids: Tensor, rows: Tensor) -> None:
        """Write (K, width) rows of (K,) int64 ids."""
        places = torch.where(sample_ids % self._ranks == self._rank, sample_ids // self._ranks, self._held)
        self._rows.index_copy_(0, places, rows.to(self._rows.dtype))

    @torch.no_grad()
    def fetch(self, sample_ids: Tensor) -> Tensor:
        """(K,) int64 ids → (K, width) rows on every rank; an id below 0 has a row of zeros."""
        mine = (sample_ids % self._ranks == self._rank) & (sample_ids >= 0)
        places = torch.where(mine, sample_ids // self._ranks, self._held)
        return sum_over_ranks(self._rows[places].masked_fill(~mine[:, None], 0))

    def whole(self) -> Tensor:
        """All rows by sample id, on the CPU of the main rank; empty elsewhere. Never whole on another device."""
        parts = []
        for ids in torch.arange(self.samples, device=self._rows.device).split(ROWS_AT_A_TIME):
            rows = self.fetch(ids)
            if self._rank == 0:
                parts.append(rows.to("cpu", copy=True))
        return torch.cat(parts) if parts else self._rows.new_empty((0, self._rows.shape[1]), device="cpu")

    @torch.no_grad()
    def load(self, whole: Tensor) -> None:
        """Take up what `whole` gave, on any number of ranks; no rank needs another for it."""
        self.own.copy_(whole[self._rank :: self._ranks])
