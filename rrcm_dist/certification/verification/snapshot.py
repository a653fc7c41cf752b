"""What a running verification shows to whoever watches."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class EpsilonState:
    """Where one ε stands. Images held by the ledger before this start are counted in."""

    epsilon: float
    images: int
    """Images asked for."""
    decided: int
    """Images with a result."""
    failed: int
    """Images given up, with a reason in the ledger."""
    clean_errors: int
    """Decided images that are classified wrongly as they are."""
    pgd_errors: int
    """Decided images of which PGD found one in the ball that is."""
    verified_errors: int
    """Decided images that are not verified."""


@dataclass(frozen=True)
class VerificationSnapshot:
    """Where the whole run stands."""

    seconds: float
    """Since this start."""
    passes: int
    """Passes through the network since this start (`config.verify.passes_per_image`)."""
    passes_left: int
    passes_per_second: float
    """Over the last ten seconds or so."""
    worker_passes_per_second: Mapping[str, float]
    """The same for each living worker, by its name."""
    images_retried: int
    """Images given to another worker since this start, because one failed or went."""
    levels: tuple[EpsilonState, ...]
    """In the recipe's order."""
