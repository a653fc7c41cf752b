"""Charts of distributions over images: how sure the smoothed classifier is, and how many draws that took."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from rrcm_dist.reporting.certificates import Certificates
from rrcm_dist.reporting.measures.agreement import share_above, ticks_until
from rrcm_dist.reporting.measures.effort import draws_vary, round_counts
from rrcm_dist.reporting.page.charts import Axes, Curve, grid, line_chart
from rrcm_dist.reporting.page.drawings import Look, family_key
from rrcm_dist.reporting.text.wording import probability_text


def agreement_chart(runs: Sequence[Certificates], look: Look) -> str:
    """The share of images whose class chosen has at least probability p under noise, on an axis of Φ⁻¹(p)."""
    steps = [share_above(run) for run in runs]
    x_max = 1.03 * max(0.5, *(float(quantile[-1]) for quantile, _ in steps))
    ticks = tuple(ticks_until(x_max, apart=0.09))
    bare = Axes(x_max, 1.0)
    headings = tuple(f"p ≥ {probability_text(float(p))}" for p in ndtr(grid(bare)))
    axes = Axes(x_max, 1.0, x_title="probability p of the class chosen", x_ticks=ticks, headings=headings)
    curves = [_curve(run, _read(*step, grid(axes)), look) for run, step in zip(runs, steps, strict=True)]
    return f"{family_key(look)}{line_chart(curves, axes, 'Share of images by the probability of their class')}"


def draws_chart(runs: Sequence[Certificates], look: Look) -> str:
    """The share of images that are still undecided after so many draws, on a logarithmic axis; '' where all took n."""
    known = [run for run in runs if draws_vary(run)]
    if not known:
        return ""
    fewest = min(float(np.nanmin(run.draws)) for run in known)
    most = max(float(run.provenance.fixed_draws or np.nanmax(run.draws)) for run in known)
    x_max = math.log10(most / fewest) * 1.03
    counts = round_counts(fewest, fewest * 10**x_max)
    ticks = tuple((math.log10(count / fewest), f"{count:,.0f}") for count in counts)
    draws = fewest * 10 ** grid(Axes(x_max, 1.0))
    headings = tuple(f"after {count:,.0f} draws" for count in draws)
    axes = Axes(x_max, 1.0, x_title="draws", x_ticks=ticks, headings=headings)
    curves = [_curve(run, _undecided(run, draws), look) for run in known]
    return line_chart(curves, axes, "Share of images that are undecided, by draws")


def _curve(run: Certificates, y: NDArray[np.float64], look: Look) -> Curve:
    label = f"σ {run.sigma:g}" if len(look.names) == 1 else f"{run.name}, σ {run.sigma:g}"
    return Curve(label, y, look.colour(run.sigma), dash=look.dash(run.name), keys=look.keys(run))


def _read(quantile: NDArray[np.float64], share: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """The falling step curve (`quantile`, `share`) at the places `at`; 0 beyond its end."""
    place = np.searchsorted(quantile, at, side="left")
    return np.where(place < len(share), share[np.minimum(place, len(share) - 1)], 0.0)


def _undecided(run: Certificates, draws: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.sort(run.draws[np.isfinite(run.draws)])
    return 1 - np.searchsorted(known, draws * (1 + 1e-9), side="right") / len(known)
