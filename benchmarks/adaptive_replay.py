"""Adaptive certification replayed on published logs: draws per image and certified accuracy lost, beside a fixed n.

The published radii are taken as true agreement probabilities p = Φ(R/σ), abstentions as p = ½. Of the same p both modes
are simulated. Beside them: a fixed n of as many draws as adaptive took on average; and Wald's bound, the fewest draws
with which any test, even one that knows every p, certifies each image at each radius as often as adaptive did.

    python -m benchmarks adaptive_replay --logs FOLDER
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, rel_entr

from benchmarks.machine import markdown_table, report
from rrcm_dist.certification.statistics.bounds import clopper_pearson_lower, largest_radius
from rrcm_dist.certification.statistics.confidence_sequence import lower_bound
from rrcm_dist.certification.statistics.stopping import AdaptiveRule, block_sizes
from rrcm_dist.config.schema import AdaptiveConfig
from rrcm_dist.reporting.reading.logs import read_log

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Replay:
    """One log, simulated; accuracies and losses in percentage points by radius, draws with the selection's."""

    name: str
    images: int
    radii: Floats
    fixed: Floats
    lost: Floats
    lost_same_draws: Floats
    draws: float
    draws_not_label: float
    wald: float


def main() -> None:
    """Replay every log of the folder and print a table by log and one by radius."""
    arguments = _arguments()
    replays = [
        replay(path, arguments, np.random.default_rng([arguments.seed, position]))
        for position, path in enumerate(sorted(arguments.logs.glob("**/*.tsv")))
    ]
    if not replays:
        sys.exit(f"error: {arguments.logs} holds no .tsv: give a folder of certification logs")
    tables = [markdown_table([_row(one) for one in replays]), _pooled(replays), markdown_table(_by_radius(replays))]
    report("adaptive_replay", "Adaptive draws, replayed on published logs", "\n\n".join(tables), arguments.record)


def _arguments() -> argparse.Namespace:
    defaults = AdaptiveConfig()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=Path, required=True, help="folder of certification logs (.tsv)")
    parser.add_argument("--radii", type=float, nargs="+", default=list(np.arange(7) * 0.25))
    parser.add_argument("--n0", type=int, default=100)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--alpha", type=float, default=0.001)
    parser.add_argument("--block", type=int, default=1000)
    parser.add_argument("--first-block", type=int, default=defaults.first_block)
    parser.add_argument("--growth", type=float, default=defaults.growth)
    parser.add_argument("--draws-per-radius", type=float, default=defaults.draws_per_radius)
    parser.add_argument("--simulated", type=int, default=200_000, help="images simulated of each log, at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    return parser.parse_args()


def replay(path: Path, arguments: argparse.Namespace, generator: np.random.Generator) -> Replay:
    """Simulate both modes with the probabilities of one log."""
    (log,) = read_log(path)
    n, alpha = arguments.n, arguments.alpha
    radii = np.array([r for r in sorted(arguments.radii) if r <= largest_radius(n, alpha, log.sigma)])
    rule = AdaptiveRule.of(log.sigma, radii, n, alpha, arguments.draws_per_radius)
    p_image = ndtr(log.radius / log.sigma)
    repetitions = -(-arguments.simulated // len(p_image))
    p = np.tile(p_image, repetitions)
    correct = np.tile(log.predict == log.label, repetitions)
    sizes = block_sizes(n, arguments.first_block, arguments.growth, arguments.block)
    lower, draws = simulate(p, rule, sizes, alpha, generator)
    adaptive = lower[:, None] >= rule.levels

    def accuracy_of_fixed(trials: int) -> Floats:
        bounds = clopper_pearson_lower(generator.binomial(trials, p), trials, alpha)
        return 100 * ((bounds[:, None] >= rule.levels) & correct[:, None]).mean(axis=0)

    accuracy = 100 * (adaptive & correct[:, None]).mean(axis=0)
    fixed = accuracy_of_fixed(n)
    power = adaptive.reshape(repetitions, len(p_image), -1).mean(axis=0)
    return Replay(
        name=f"{log.name}, σ {log.sigma:g}", images=len(p_image), radii=radii, fixed=fixed, lost=fixed - accuracy,
        lost_same_draws=fixed - accuracy_of_fixed(round(draws.mean())),
        draws=arguments.n0 + draws.mean(), draws_not_label=float(draws[~correct].sum() / draws.size),
        wald=arguments.n0 + wald_bound(p_image, rule.levels, power, alpha).mean(),
    )  # fmt: skip


def simulate(
    p: Floats, rule: AdaptiveRule, sizes: list[int], alpha: float, generator: np.random.Generator
) -> tuple[Floats, NDArray[np.int64]]:
    """Running lower bound and estimation draws at the stop of images of agreement probabilities `p`: (images,) each."""
    successes, draws, lower = np.zeros(p.size, np.int64), np.zeros(p.size, np.int64), np.zeros(p.size)
    active, trials = np.arange(p.size), 0
    for size in sizes:
        trials += size
        successes[active] += generator.binomial(size, p[active])
        draws[active] = trials
        counts, place = np.unique(successes[active], return_inverse=True)
        lower[active] = np.maximum(lower[active], lower_bound(counts, trials, alpha)[place])
        active = active[~rule.finished(successes[active], trials, lower[active])]
    return lower, draws


def wald_bound(p: Floats, levels: Floats, power: Floats, alpha: float) -> Floats:
    """Fewest expected draws with which level i is certified with probability power[:, i]: (images,).

    E[draws] ≥ d(power, α) / d(p, level), d the relative entropy of two coins (Wald, Ann. Math. Stat. 16, 1945).
    """
    reached = (p[:, None] > levels) & (power > alpha)
    needed = np.divide(_entropy(power, alpha), _entropy(p[:, None], levels), out=np.zeros(power.shape), where=reached)
    return needed.max(axis=1)


def _entropy(p: Floats, q: Floats | float) -> Floats:
    return rel_entr(p, q) + rel_entr(1 - p, 1 - np.asarray(q))


def _row(one: Replay) -> dict[str, str]:
    return {
        "log": one.name,
        "images": str(one.images),
        "draws per image": f"{one.draws:,.0f}",
        "of them on other classes than the label": f"{one.draws_not_label:,.0f}",
        "fewer, times": f"{100_100 / one.draws:.1f}",
        "points lost, average": f"{one.lost.mean():.2f}",
        "worst": f"{one.lost.max():.2f}",
        "Wald's bound, draws": f"{one.wald:,.0f}",
        "fixed n of as many draws: points lost, average": f"{one.lost_same_draws.mean():.2f}",
        "its worst": f"{one.lost_same_draws.max():.2f}",
    }


def _by_radius(replays: list[Replay]) -> list[dict[str, str]]:
    rows = []
    for radius in sorted({float(r) for one in replays for r in one.radii}):
        reached = [one for one in replays if radius in one.radii]
        lost = {one.name: float(one.lost[one.radii == radius][0]) for one in reached}
        fixed = np.mean([one.fixed[one.radii == radius][0] for one in reached])
        row = {"radius": f"{radius:g}", "fixed n": f"{fixed:.1f}", "points lost": f"{np.mean(list(lost.values())):.2f}"}
        rows.append(row | {one.name: f"{lost[one.name]:.2f}" if one.name in lost else "" for one in replays})
    return rows


def _pooled(replays: list[Replay]) -> str:
    """All logs together, each counting alike."""
    by_radius = [float(row["points lost"]) for row in _by_radius(replays)]
    draws, wald = np.mean([(one.draws, one.wald) for one in replays], axis=0)
    return (
        f"All logs, each counting alike: {draws:,.0f} draws per image, {np.mean(by_radius):.2f} points lost on average "
        f"over the radii, {max(by_radius):.2f} at worst; Wald's bound {wald:,.0f} draws."
    )


if __name__ == "__main__":
    main()
