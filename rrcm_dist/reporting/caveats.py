"""What a reader must know before believing the numbers of the runs at hand."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from rrcm_dist.reporting.certificates import Certificates
from rrcm_dist.reporting.likeness import unlike
from rrcm_dist.reporting.measures.guarantees import most_wrong
from rrcm_dist.reporting.summary import families

SHOWN_REASONS = 3
"""Reasons of failed images that a remark quotes."""
LONGEST_REASON = 120
SHOWN_PAIRS = 3
"""Pairs of runs that a remark on how they differ names."""


def caveats(runs: Sequence[Certificates]) -> list[str]:
    """Remarks on these very runs, most important first."""
    remarks = (_unlike, _failures, _size, _adaptive, _other_alpha, _wrong, _envelopes, _rounded)
    return [remark for told in remarks for remark in told(runs)]


def _unlike(runs: Sequence[Certificates]) -> Iterator[str]:
    pairs: dict[str, list[str]] = {}
    for one, other in combinations(runs, 2):
        names = (one.name, other.name) if one.name != other.name else (f"σ {one.sigma:g}", f"σ {other.sigma:g}")
        for remark in unlike(one.provenance, other.provenance):
            told = pairs.setdefault(remark, [])
            if (pair := " and ".join(names)) not in told:
                told.append(pair)
    for remark, told in pairs.items():
        further = f"; {len(told) - SHOWN_PAIRS} further pairs" if len(told) > SHOWN_PAIRS else ""
        yield f"Not made alike ({'; '.join(told[:SHOWN_PAIRS])}{further}): {remark}."


def _failures(runs: Sequence[Certificates]) -> Iterator[str]:
    for run in runs:
        if run.failures:
            reasons = Counter(_first_line(reason) for reason in run.failures.values()).most_common()
            told = "; ".join(f"{count} × {reason}" for reason, count in reasons[:SHOWN_REASONS])
            further = f"; {len(reasons) - SHOWN_REASONS} further reasons" if len(reasons) > SHOWN_REASONS else ""
            yield (
                f"{len(run.failures)} of {run.images} images of {run.name} at σ {run.sigma:g} failed and count as not "
                f"certified: {told}{further}."
            )


def _size(runs: Sequence[Certificates]) -> Iterator[str]:
    fewest = min(run.images for run in runs)
    points = 100 * 0.5 / np.sqrt(fewest)
    yield (
        f"{fewest} images{' in the smallest run' if len({run.images for run in runs}) > 1 else ''}: "
        f"the standard error of an accuracy near 50 % is {points:.1f} points."
    )


def _adaptive(runs: Sequence[Certificates]) -> Iterator[str]:
    adaptive = [run for run in runs if run.provenance.mode == "adaptive"]
    if not adaptive:
        return
    which = "" if len(adaptive) == len(runs) else f" ({_named(adaptive)})"
    yield (
        f"Mode adaptive{which}: radii were decided by a time-uniform confidence sequence. ACR is a lower value than "
        "with fixed n, since images stop once the grid of radii is decided; so is certified accuracy between its "
        "radii. The futility rule may have cost certified images, never soundness."
    )


def _named(runs: Sequence[Certificates]) -> str:
    levels = ((name, ", ".join(f"{run.sigma:g}" for run in members)) for name, members in families(runs).items())
    return "; ".join(f"{name} at σ {sigmas}" for name, sigmas in levels)


def _other_alpha(runs: Sequence[Certificates]) -> Iterator[str]:
    changed = [run for run in runs if run.provenance.mode == "adaptive" and "made at alpha" in run.provenance.settings]
    if changed:
        yield (
            f"{_named(changed)}: mode adaptive stopped at another α than the bounds are read at here. They hold, but "
            "no radius was decided at this α: with its own draws more might be certified."
        )


def _wrong(runs: Sequence[Certificates]) -> Iterator[str]:
    known: dict[tuple[float, int], list[Certificates]] = {}
    for run in runs:
        if run.provenance.alpha is not None:
            known.setdefault((run.provenance.alpha, run.images), []).append(run)
    for (alpha, images), members in known.items():
        which = "" if len(members) == len(runs) else f" of {_named(members)}"
        yield (
            f"α = {alpha:g} is the chance that one certificate{which} is wrong: with 95 % confidence at most "
            f"{most_wrong(images, alpha)} of {images} are, at each σ. The guaranteed values take them off."
        )


def _envelopes(runs: Sequence[Certificates]) -> Iterator[str]:
    by_name = families(runs)
    if any(len(members) > 1 for members in by_name.values()):
        yield (
            "Best of σ is a convention for curves of a data set: it picks the σ after looking, so its interval is "
            "that of the σ picked and a little optimistic. Every σ stands beside it."
        )
    for name, members in by_name.items():
        if any(not np.array_equal(members[0].image, run.image) for run in members[1:]):
            yield f"The runs of {name} were certified on different images: their envelope mixes test sets."


def _rounded(runs: Sequence[Certificates]) -> Iterator[str]:
    rounded = sum(run.provenance.rounded for run in runs)
    if rounded:
        which = "The radii of these logs" if rounded == len(runs) else f"The radii of {rounded} of {len(runs)} runs"
        yield f"{which} stand in the file with three significant digits: some were rounded up across a radius."


def _first_line(reason: str) -> str:
    line = (reason.strip().splitlines() or ["no reason stated"])[0]
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]} …"
