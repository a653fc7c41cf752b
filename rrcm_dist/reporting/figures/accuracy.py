"""Certified accuracy for papers: a family at every σ with its bands, and families at their best of σ."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from rrcm_dist.reporting.certificates import Certificates
from rrcm_dist.reporting.figures.style import (
    COLOURS,
    GREY,
    MARKERS,
    PAGE,
    STROKES,
    legend_below,
    percent_axis,
    sheet,
    shown,
)
from rrcm_dist.reporting.measures.accuracy import best_of_sigma_curve, certified_accuracy_curve
from rrcm_dist.reporting.published import PublishedTable

FINEST = 800
"""Radii at which a curve is drawn; with fewer distinct ones, at these exactly."""
RADIUS_LABEL = r"Certified $\ell_2$ radius $r$"


def family_figure(members: Sequence[Certificates]) -> Figure:
    """Every σ of a family with its simultaneous 95 % band, and their envelope where there are several."""
    figure, (axes,) = sheet()
    for k, run in enumerate(members):
        radii = jumps([run])
        value, low, high = 100 * certified_accuracy_curve(run, radii)
        colour, stroke = COLOURS[k % len(COLOURS)], STROKES[k % len(STROKES)]
        axes.fill_between(radii, low, high, step="pre", color=colour, alpha=0.15, linewidth=0)
        axes.plot(
            radii, value, drawstyle="steps-pre", color=colour, linestyle=stroke, label=rf"$\sigma$ = {run.sigma:g}"
        )
    if len(members) > 1:
        radii = jumps(members)
        best = 100 * best_of_sigma_curve(members, radii)
        axes.plot(radii, best, drawstyle="steps-pre", color="black", linewidth=0.5, label=r"best of $\sigma$", zorder=3)
    finish(axes, members)
    legend_below(figure, axes, Patch(facecolor=GREY, alpha=0.3, linewidth=0, label="95 % band, simultaneous"))
    return figure


def envelopes_figure(by_name: Mapping[str, Sequence[Certificates]], published: PublishedTable | None) -> Figure:
    """Each family's best of σ, over published results if there are any; the legend stands beside the axes."""
    figure, (axes,) = sheet(PAGE, 2.6)
    if published is not None:
        for k, method in enumerate(published.methods):
            accuracy = 100 * np.array(method.accuracy)
            axes.plot(published.radii, accuracy, color=GREY, linewidth=0.5, label=shown(method.name), markersize=3.2,
                      marker=MARKERS[k % len(MARKERS)], markerfacecolor="white", markeredgewidth=0.6)  # fmt: skip
    for k, (name, members) in enumerate(by_name.items()):
        radii = jumps(members)
        axes.plot(radii, 100 * best_of_sigma_curve(members, radii), drawstyle="steps-pre", zorder=3, linewidth=1.5,
                  color=COLOURS[k % len(COLOURS)], linestyle=STROKES[k % len(STROKES)], label=shown(name))  # fmt: skip
    finish(axes, [run for members in by_name.values() for run in members])
    if published is not None:
        axes.set_xlim(right=max(axes.get_xlim()[1], 1.03 * max(published.radii)))
    handles, labels = axes.get_legend_handles_labels()
    own = len(by_name)
    figure.legend([*handles[-own:], *handles[:-own]], [*labels[-own:], *labels[:-own]], loc="outside right upper")
    return figure


def jumps(runs: Sequence[Certificates]) -> NDArray[np.float64]:
    """float64 (R,): the radii at which a curve of `runs` falls, 0 and one beyond the last; an even grid where many."""
    radii = np.concatenate([run.radius[run.correct] for run in runs])
    last = float(radii.max(initial=0.0))
    distinct = np.unique(np.concatenate([[0.0], radii]))
    inside = distinct if len(distinct) <= FINEST else np.linspace(0, last, FINEST)
    return np.append(inside, last * 1.0001 + 1e-6)


def finish(axes: Axes, runs: Sequence[Certificates]) -> None:
    """Labels and limits of an accuracy figure."""
    percent_axis(axes, "Certified accuracy (%)")
    axes.set_xlim(0, 1.03 * max(0.05, *(float(run.correct_radius.max()) for run in runs)))
    axes.set_xlabel(RADIUS_LABEL)
