"""Settings of hard negatives and of the batch balance loss (Conan-embedding, Li et al. 2024, arXiv 2408.15710)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rrcm_dist.config.parts import Count, Part

Cosine = Annotated[float, Field(gt=-1, le=1)]

OF_REPLACEMENT = frozenset({"factor", "largest_score", "window", "windows", "past_last"})
IDLE = {"static": OF_REPLACEMENT, "random": OF_REPLACEMENT | {"interval", "skip", "guard.skip_share", "guard.on"}}
"""Settings that a mode does not read. The guard's ceilings ban columns of every mode."""


def _not_default(part: Part) -> set[str]:
    """Settings that are other than their defaults; stored recipes give every one, so that giving alone says nothing."""
    return {name for name, field in type(part).model_fields.items() if getattr(part, name) != field.default}


class GuardConfig(Part):
    """Against false negatives: samples so like the query that they are likely of its own kind. No labels are used."""

    on: bool = True
    """False leaves in the published rule alone. A query's own sample is banned all the same."""
    skip_share: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """This share of the pool, from the most alike on, is skipped, where it is more than `skip`. About what a class
    has of all samples, or twice that."""
    ceiling: Cosine | None = None
    """Negatives are banned at or above this cosine to the query; null bans none."""
    of_agreement: Annotated[float, Field(gt=0, le=1)] | None = None
    """Negatives are banned at or above this share of the cosine between the query's own two views; null bans none."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if not self.on and (idle := sorted(_not_default(self) - {"on"})):
            raise ValueError(f"on false leaves the guard out, so that {', '.join(idle)} decides nothing: leave it out")
        return self


class HardNegativesConfig(Part):
    """Hard negatives of each sample, mined from a bank of all samples' target projections, in the contrastive terms."""

    count: Count = 8
    """n: hard negatives that a sample keeps."""
    mode: Literal["dynamic", "static", "random"] = "dynamic"
    """dynamic: replaced by the published rule; static: mined once and kept; random: drawn anew at every step."""
    columns: Literal["shared", "own"] = "shared"
    """shared: the negatives of the whole global batch stand in every denominator, as published; own: a sample's own."""
    start: Annotated[int, Field(ge=0)] | None = None
    """Steps before the first mining; null: one pass over the training images, after which each was visited."""
    interval: Count = 100
    """Steps between looks at the negatives of all samples; 100 as published."""
    factor: Annotated[float, Field(gt=0)] = 1.15
    """Negatives are replaced where factor · S < S0: S their mean cosine to the sample now, S0 when assigned …"""
    largest_score: Annotated[float, Field(gt=0, le=1)] = 0.8
    """… and |S| is below this."""
    skip: Annotated[int, Field(ge=0)] = 10
    """Ranks left out at the top as likely positives; 10 as published."""
    ranking: Literal["current", "kept"] = "current"
    """current: ranked again with today's bank at every replacement; kept: the ranking of a sample's first mining."""
    window: Literal["walking", "first"] = "walking"
    """walking: the i-th assignment takes ranks [(i-1)n + skip, in + skip), as published; first: those of i = 1."""
    windows: Count = 8
    """Windows in a ranking: i goes no further."""
    past_last: Literal["restart", "stay"] = "restart"
    """After the last window: restart with i = 1, or keep what there is. So, too, where the pool gives out before."""
    pool: Count | None = None
    """Samples that are ranked, drawn at random for each mining; null ranks all, which ImageNet's size makes slow."""
    precision: Literal["fp32", "fp16"] = "fp32"
    """Of the bank; fp16 halves its memory."""
    guard: GuardConfig = GuardConfig()
    """Against false negatives."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        given = _not_default(self) | {f"guard.{name}" for name in _not_default(self.guard)}
        if idle := sorted(given & IDLE.get(self.mode, frozenset())):
            raise ValueError(f"mode {self.mode} does not read {', '.join(idle)}: leave out what decides nothing")
        if self.ranking == "kept" and self.mode != "dynamic":
            raise ValueError(f"ranking kept is for mode dynamic alone; in mode {self.mode} leave ranking at current")
        if self.ranking == "kept" and self.window == "first":
            raise ValueError(
                "ranking kept with window first would always take the same negatives: choose ranking current, "
                "window walking, or mode static"
            )
        if self.mode == "random" and self.pool is not None:
            raise ValueError("mode random draws from all samples: leave pool at null")
        if self.pool is not None and (problem := self.problem(self.pool)):
            raise ValueError(problem)
        return self

    def skipped(self, pool: int) -> int:
        """Ranks left out at the top of a ranking of so many samples."""
        return max(self.skip, int(self.guard.skip_share * pool)) if self.guard.on else self.skip

    def ranks(self, pool: int) -> int:
        """Ranks that windows reach down to in a pool of so many samples; in mode random, samples needed."""
        if self.mode == "random":
            return self.count
        windows = self.windows if self.mode == "dynamic" and self.window == "walking" else 1
        return self.skipped(pool) + windows * self.count

    def problem(self, samples: int) -> str:
        """Why negatives of so many samples cannot be had; empty where they can."""
        pool = samples if self.pool is None else self.pool
        if pool > samples:
            return f"pool {pool} is more than the {samples} samples that there are: lower it, or set it to null"
        if self.ranks(pool) < pool:
            return ""
        if self.mode == "random":
            return f"{pool} samples are fewer than {self.count} negatives and the query itself: lower count"
        windows = (self.ranks(pool) - self.skipped(pool)) // self.count
        return (
            f"negatives are asked for down to rank {self.ranks(pool)} ({self.skipped(pool)} skipped, then {windows} "
            f"windows of {self.count}) among {pool} samples, the query itself one of them: lower count, windows, skip "
            "or guard.skip_share"
        )

    def bank_bytes(self, samples: int, width: int, ranks: int) -> int:
        """Memory that a rank holds for good: its share of the bank, and of what is known of each sample.

        Args:
            samples: of the training images.
            width: of a target projection.
            ranks: over which they are dealt out.
        """
        kept = self.windows * self.count if self.ranking == "kept" else 0
        row = width * (2 if self.precision == "fp16" else 4) + 4 * (3 + self.count + kept)
        return (-(-samples // ranks) + 1) * row

    def mining_bytes(self, samples: int, width: int, ranks: int) -> int:
        """Memory that a rank needs besides while it mines, at most."""
        if self.mode == "random":
            return 0
        pool, queries = min(self.pool or samples, 65536), -(-samples // ranks)
        return 3 * 4 * pool * width + 2 * 4 * queries * width + 12 * queries * self.ranks(self.pool or samples)


class BatchBalanceConfig(Part):
    """β · CoSENT over graded pairs of the global batch, beside the contrastive terms of rRCM in every update."""

    beta: Annotated[float, Field(gt=0)] = 0.8
    """β, weight of CoSENT; 0.8 as published."""
    temperature: Annotated[float, Field(gt=0)] | None = None
    """τ of CoSENT; null takes the recipe's `temperature`, as published."""
    grades: Literal["noise_gap", "crop_overlap"] = "noise_gap"
    """Which pairs are graded. noise_gap: representations of an image at t_min, t_i and t_(i+1), the more alike the
    nearer their levels; crop_overlap: views A and B, the more alike the more their crops overlap (IoU)."""
