"""Logs in the forms that they are published in and ledgers, made here from certificates with known answers."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from rrcm_dist.certification.blocks import Block, BlockCounts, Stage
from rrcm_dist.certification.ledger.file import RunIdentity
from rrcm_dist.certification.ledger.writer import Ledger
from rrcm_dist.certification.plan import planned_blocks
from rrcm_dist.certification.statistics.confidence_sequence import lower_bound
from rrcm_dist.certification.statistics.stopping import AdaptiveRule

COLUMNS = ("idx", "label", "predict", "radius", "correct", "time")
CERTIFICATES = (
    # idx, label, predict, radius, correct
    (0, 3, 3, 0.5, 1),
    (20, 7, -1, 0.0, 0),
    (40, 4, 4, 0.25, 1),
    (60, 7, 1, 0.75, 0),
)
"""Certified accuracy 0.5 at r ≤ 0.25, 0.25 at 0.5, 0 beyond; ACR 0.75 / 4; one of four abstains."""


@pytest.fixture
def write_log(tmp_path: Path) -> Callable[..., Path]:
    """Write a log of `certificates` with a time each; returns its path."""

    def write(
        name: str,
        certificates: Sequence[tuple] = CERTIFICATES,
        header: Sequence[str] | None = COLUMNS,
        times: Sequence[str] | None = None,
        newline: str = "\n",
    ) -> Path:
        lines = ["\t".join(header)] if header else []
        for position, certificate in enumerate(certificates):
            time = [times[position]] if times else ["15.4"]
            lines.append("\t".join(str(value) for value in (*certificate, *time)))
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(newline.join([*lines, ""]), newline="")
        return path

    return write


RADII = (0.0, 0.25, 0.5, 1.0)
AGREEING_SHARES = {0: 1.0, 10: 0.97, 20: 0.8, 30: 0.5, 40: 0.2}
"""Share of the draws of each image that agree with its label, class 5; image 40 is given class 0 for the most part."""


@pytest.fixture
def write_adaptive_ledger(tmp_path: Path) -> Callable[..., Path]:
    """Write a finished ledger of mode adaptive whose image 50 failed, with counts as near to the shares as can be."""

    def write(name: str, sigmas: Sequence[float] = (0.5,), n: int = 20_000) -> Path:
        identity = RunIdentity(0, 100, 0.001, 1000, "set", 10, 8, "cuda", "fp32", "adaptive", 100, 0.15)
        settings = {"radii": list(RADII), "adaptive": {"draws_per_radius": 75_000}}
        with Ledger(tmp_path / name, identity, n, "adaptive digits", settings) as ledger:
            ledger.add_images([(image, f"key{image}", 5) for image in (*AGREEING_SHARES, 50)])
            for sigma in sigmas:
                ledger.set_classifier(sigma, "0" * 64, "weights")
                rule = AdaptiveRule.of(sigma, RADII, n, identity.alpha, **settings["adaptive"])
                for image, share in AGREEING_SHARES.items():
                    ledger.add(_blocks_until_finished(image, share, sigma, n, rule))
                ledger.fail(sigma, 50, "logits are not finite in block 12\nTraceback: …")
        return tmp_path / name

    return write


@pytest.fixture
def write_fixed_ledger(tmp_path: Path) -> Callable[..., Path]:
    """Write a finished ledger of mode fixed on the images of the adaptive one, at σ 0.5."""

    def write(name: str, n: int = 1000, alpha: float = 0.001) -> Path:
        identity = RunIdentity(0, 100, alpha, 1000, "set", 10, 8, "cuda", "fp32")
        with Ledger(tmp_path / name, identity, n, "fixed digits", {"radii": list(RADII)}) as ledger:
            ledger.add_images([(image, f"key{image}", 5) for image in AGREEING_SHARES])
            ledger.set_classifier(0.5, "0" * 64, "weights")
            for image, share in AGREEING_SHARES.items():
                ledger.add([_block(image, share, 0.5, *planned) for planned in planned_blocks(100, n, 1000)])
        return tmp_path / name

    return write


def _blocks_until_finished(image: int, share: float, sigma: float, n: int, rule: AdaptiveRule) -> list[BlockCounts]:
    results, successes, trials, lower = [], 0, 0, 0.0
    for stage, number, draws in planned_blocks(100, n, 1000, 100, 0.15):
        results.append(_block(image, share, sigma, stage, number, draws))
        counts = results[-1].counts
        if stage is Stage.ESTIMATION:
            successes, trials = successes + int(max(counts[5], counts[0])), trials + draws
            lower = max(lower, float(lower_bound(successes, trials, 0.001)))
            if rule.finished(successes, trials, lower):
                break
    return results


def _block(image: int, share: float, sigma: float, stage: Stage, number: int, draws: int) -> BlockCounts:
    counts = np.zeros(10, dtype=np.int64)
    counts[5] = round(share * draws)
    counts[0] = draws - counts[5]
    return BlockCounts(Block(image, f"key{image}", sigma, stage, number, draws), counts, "host", draws / 1000)
