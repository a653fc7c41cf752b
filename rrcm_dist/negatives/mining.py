"""Every sample's hard negatives: assigned, looked at again at intervals, replaced by the published rule."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rrcm_dist.config.hard_negatives import HardNegativesConfig
from rrcm_dist.distributed.collectives import sum_over_ranks
from rrcm_dist.negatives.guard import Guard
from rrcm_dist.negatives.ranking import NONE, ranked
from rrcm_dist.negatives.rule import is_due, window
from rrcm_dist.negatives.sharded_rows import ROWS_AT_A_TIME, ShardedRows
from rrcm_dist.random_streams import Purpose, numpy_generator

PAIRS_AT_A_TIME = 2**18
"""Pairs of a query and a negative whose cosines are computed together."""


@dataclass
class Tally:
    """What the last look at all negatives found: () float32 tensors, the same on every rank."""

    score: Tensor
    """Mean S over samples that have negatives, after the look."""
    replaced: Tensor
    """Share of them whose negatives were replaced."""
    replacements: Tensor
    """Replacements so far, of all samples and looks."""


class HardNegatives:
    """A bank of representations and the hard negatives of every sample, dealt out over ranks by sample id.

    Every rank calls every method at the same moments. Where ids are given, they are the same on every rank.
    """

    def __init__(self, config: HardNegativesConfig, samples: int, width: int, seed: int, device: torch.device) -> None:
        """`width` is that of the representations; everything drawn follows from `seed`."""
        self._config, self._samples, self._seed, self._device = config, samples, seed, device
        self._guard = _guard(config)
        self.bank = ShardedRows(samples, width, torch.float16 if config.precision == "fp16" else torch.float32, device)
        self.agreement = ShardedRows(samples, 1, torch.float32, device)
        self.assigned = ShardedRows(samples, config.count, torch.int32, device, fill=NONE)
        self.score = ShardedRows(samples, 1, torch.float32, device)
        self.number = ShardedRows(samples, 1, torch.int32, device)
        kept = config.windows * config.count if config.ranking == "kept" else 0
        self.ranking = ShardedRows(samples, kept, torch.int32, device, fill=NONE)
        self.tally = Tally(*torch.zeros(3, device=device))

    def visit(self, sample_ids: Tensor, views: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Keep the mean of two views' representations of (B,) samples; a sample's rows replace its earlier ones.

        Args:
            sample_ids: (B,) int64, of the global batch.
            views: (B, D) float each.

        Returns:
            (B, D) float32 of norm 1 and (B,) cosines between the two views.
        """
        first, second = (F.normalize(view.detach().float(), dim=1) for view in views)
        mean, agreement = F.normalize(first + second, dim=1), (first * second).sum(dim=1)
        self.bank.put(sample_ids, mean)
        self.agreement.put(sample_ids, agreement[:, None])
        return mean, agreement

    def ids(self, sample_ids: Tensor, step: int) -> Tensor:
        """(B,) int64 sample ids → (B, n) int64 ids of their negatives, `NONE` where there are none."""
        if self._config.mode != "random":
            return self.assigned.fetch(sample_ids).long()
        shape = (len(sample_ids), self._config.count)
        drawn = numpy_generator(Purpose.NEGATIVES, self._seed, step).integers(self._samples, size=shape)
        return torch.from_numpy(drawn).to(self._device, non_blocking=True)

    def limit(self, agreement: Tensor) -> Tensor:
        """(n,) cosines between the two views of queries → (n,) cosines at which the guard bans a negative."""
        return self._guard.limit(agreement)

    @torch.no_grad()
    def look(self, step: int) -> None:
        """Look at the negatives of all samples, and replace those that have become easy."""
        if self._config.mode == "random":
            return
        before = self._scores()
        due = self._due(before)
        had = self.number.own[:, 0] > 0
        assigned = self._assign(due, self._pool(step))
        after = self._scores()
        new = torch.zeros_like(due)
        new[due] = assigned
        self.score.own[new, 0] = after[new]
        has = self.number.own[:, 0] > 0
        sums = torch.stack([after[has].sum(), (new & had).sum().float(), had.sum().float(), has.sum().float()])
        total, replaced, of, queries = sum_over_ranks(sums).unbind()
        self.tally = Tally(total / queries.clamp(min=1), replaced / of.clamp(min=1), self.tally.replacements + replaced)

    def state(self) -> dict[str, Tensor]:
        """All of it by name, whole, on the CPU of the main rank; empty tensors elsewhere."""
        tables = {name: table.whole() for name, table in self._tables().items()}
        tally = torch.stack([self.tally.score, self.tally.replaced, self.tally.replacements])
        return {**tables, "tally": tally.to("cpu", copy=True)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave on the main rank, on any number of ranks; every tensor's shape must be as here."""
        for name, table in self._tables().items():
            table.load(state[name])
        self.tally = Tally(*state["tally"].to(self._device).unbind())

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Shape of each table of `state`."""
        return {name: (self._samples, table.own.shape[1]) for name, table in self._tables().items()}

    def _tables(self) -> dict[str, ShardedRows]:
        tables = {"bank": self.bank, "agreement": self.agreement, "assigned": self.assigned, "score": self.score}
        return {**tables, "number": self.number, **({"ranking": self.ranking} if self.ranking.own.shape[1] else {})}

    def _pool(self, step: int) -> Tensor:
        if self._config.pool is None:
            return torch.arange(self._samples, device=self._device)
        generator = numpy_generator(Purpose.NEGATIVES, self._seed, "pool", step)
        drawn = generator.choice(self._samples, self._config.pool, replace=False)
        return torch.from_numpy(drawn).sort().values.to(self._device)

    def _due(self, scores: Tensor) -> Tensor:
        """bool (held,): which of the rank's samples are to be given negatives."""
        config, number = self._config, self.number.own[:, 0]
        visited = self.bank.own.float().square().sum(dim=1) > 0
        never = visited & (number == 0)
        if config.mode == "static":
            return never
        easy = is_due(scores, self.score.own[:, 0], config.factor, config.largest_score)
        goes_on = (number < config.windows) | (config.past_last == "restart")
        return never | (visited & (number > 0) & easy & goes_on)

    def _assign(self, due: Tensor, pool: Tensor) -> Tensor:
        """Give the rank's samples that are due their next window; bool (due,): those for which there is any sample."""
        config = self._config
        number = self.number.own[due, 0].long() % config.windows + 1
        if config.window == "first":
            number = torch.ones_like(number)
        skip, ranking = self._ranking_of(due, pool)
        given = ranking.gather(1, window(number, config.count, skip))
        ends = (given == NONE).all(dim=1)
        if config.past_last == "restart":
            number = torch.where(ends, torch.ones_like(number), number)
            given = ranking.gather(1, window(number, config.count, skip))
            ends = (given == NONE).all(dim=1)
        places = due.nonzero()[:, 0][~ends]
        self.assigned.own[places] = given[~ends].int()
        self.number.own[places, 0] = number[~ends].int()
        return ~ends

    def _ranking_of(self, due: Tensor, pool: Tensor) -> tuple[int, Tensor]:
        """Ranks that come before the first column, and (due, ranks) ids."""
        config, number = self._config, self.number.own[:, 0]
        kept = config.ranking == "kept"
        asked = due & (number == 0) if kept else due
        found = ranked(
            self.bank, self.bank.own[asked], self.bank.own_ids[asked], self.limit(self.agreement.own[asked, 0]),
            pool, config.ranks(len(pool)),
        )  # fmt: skip
        if not kept:
            return config.skipped(len(pool)), found
        self.ranking.own[asked] = found[:, config.skipped(len(pool)) :].int()
        return 0, self.ranking.own[due].long()

    def _scores(self) -> Tensor:
        """(held,) float32 S of the rank's samples: mean cosine to those of their negatives that there are."""
        queries, negatives = F.normalize(self.bank.own.float(), dim=1), self.assigned.own.long()
        cosines = queries.new_zeros(negatives.shape)
        for first in range(0, self._samples, ROWS_AT_A_TIME):
            last = min(first + ROWS_AT_A_TIME, self._samples)
            keys = F.normalize(self.bank.fetch(torch.arange(first, last, device=self._device)).float(), dim=1)
            for rows, columns in _split((negatives >= first) & (negatives < last)):
                found = keys[negatives[rows, columns] - first]
                cosines[rows, columns] = (queries[rows] * found).sum(dim=1)
        return cosines.sum(dim=1) / (negatives != NONE).sum(dim=1).clamp(min=1)


def _split(chosen: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Row and column numbers of what is chosen, some at a time."""
    rows, columns = chosen.nonzero(as_tuple=True)
    return list(zip(rows.split(PAIRS_AT_A_TIME), columns.split(PAIRS_AT_A_TIME), strict=True))


def _guard(config: HardNegativesConfig) -> Guard:
    guard = config.guard
    return Guard(guard.ceiling, guard.of_agreement) if guard.on else Guard()
