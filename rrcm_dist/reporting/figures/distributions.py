"""How sure the classifier is, and how many draws that took: distributions over images."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from rrcm_dist.reporting.certificates import Certificates
from rrcm_dist.reporting.figures.style import COLOURS, GREY, STROKES, legend_below, percent_axis, sheet
from rrcm_dist.reporting.measures.agreement import share_above, ticks_until
from rrcm_dist.reporting.measures.effort import draws_vary, round_counts


def agreement_figure(members: Sequence[Certificates]) -> Figure:
    """The share of images whose class chosen has at least probability p under noise, for each σ of a family.

    The axis is Φ⁻¹(p), on which the certified radius is a straight line: R = σ Φ⁻¹(p).
    """
    figure, (axes,) = sheet()
    right = 0.5
    for k, run in enumerate(members):
        quantile, share = share_above(run)
        right = max(right, float(quantile[-1]))
        axes.plot(quantile, 100 * share, drawstyle="steps-pre", color=COLOURS[k % len(COLOURS)],
                  linestyle=STROKES[k % len(STROKES)], label=rf"$\sigma$ = {run.sigma:g}")  # fmt: skip
    axes.set_xlim(0, 1.03 * right)
    axes.set_xticks(*zip(*ticks_until(1.03 * right, apart=0.1), strict=True))
    known = {run.provenance.agreement for run in members}
    axes.set_xlabel(r"$p_A$" + (", lower bound" if known == {"bound"} else "") + r"  (axis: $\Phi^{-1}$)")
    percent_axis(axes, r"Images with at least $p_A$ (%)")
    legend_below(figure, axes)
    return figure


def draws_figure(members: Sequence[Certificates]) -> Figure | None:
    """The share of images that took more than so many draws, for each σ of a family; None where all took as many."""
    if not any(draws_vary(run) for run in members):
        return None
    figure, (axes,) = sheet()
    for k, run in enumerate(members):
        draws = np.sort(run.draws[np.isfinite(run.draws)])
        if not len(draws):
            continue
        share = 1 - np.arange(1, len(draws) + 1) / len(draws)
        label = rf"$\sigma$ = {run.sigma:g}, mean {draws.mean():,.0f}"
        axes.plot(np.concatenate([[draws[0]], draws]), 100 * np.concatenate([[1.0], share]), drawstyle="steps-post",
                  color=COLOURS[k % len(COLOURS)], linestyle=STROKES[k % len(STROKES)], label=label)  # fmt: skip
    fixed = max((run.provenance.fixed_draws or 0 for run in members), default=0)
    if fixed:
        axes.axvline(fixed, color=GREY, linewidth=0.8, linestyle=":", label=f"fixed n: {fixed:,}")
    _log_axis(axes)
    percent_axis(axes, "Images still undecided (%)")
    legend_below(figure, axes)
    return figure


def _log_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("Draws")
    axes.xaxis.set_major_locator(FixedLocator(round_counts(*axes.get_xlim())))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
