"""Two runs on the same images: every image's two radii, and the difference of certified accuracy at every radius."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from rrcm_dist.reporting.figures.accuracy import FINEST, RADIUS_LABEL
from rrcm_dist.reporting.figures.style import COLOURS, GREY, PAGE, sheet, shown
from rrcm_dist.reporting.measures.pairing import difference_curve
from rrcm_dist.reporting.summary import Comparison

MANY = 2000
"""Points beyond which a scatter is drawn as an image within the vector files."""
LONGEST = 34
"""Letters of a name that an axis of half a page has room for."""


def comparison_figure(comparison: Comparison) -> Figure:
    """Radius against radius, and the difference curve with the band that holds all of it."""
    figure, (scatter, difference) = sheet(PAGE, 2.5, panels=2)
    _scatter(scatter, comparison)
    _difference(difference, comparison)
    band = Patch(facecolor=COLOURS[0], alpha=0.18, linewidth=0, label="95 % band, simultaneous")
    figure.legend(handles=[band], loc="outside lower right")
    return figure


def _scatter(axes: Axes, comparison: Comparison) -> None:
    one, other = np.maximum(comparison.pairs.one, 0), np.maximum(comparison.pairs.other, 0)
    larger = 1.04 * max(float(one.max()), float(other.max()), 0.05)
    axes.plot([0, larger], [0, larger], color=GREY, linewidth=0.6, zorder=1)
    for above, colour, marker, label in (
        (one > other, COLOURS[0], "o", "x larger"),
        (other > one, COLOURS[1], "^", "y larger"),
    ):
        axes.scatter(
            one[above],
            other[above],
            s=5,
            marker=marker,
            facecolors="none",
            edgecolors=colour,
            linewidths=0.4,
            rasterized=comparison.images > MANY,
            clip_on=False,
            label=f"{label}: {int(above.sum()):,}",
        )
    axes.plot([], [], color=GREY, linewidth=0.6, label=f"equal: {int((one == other).sum()):,}")
    axes.set_xlim(0, larger)
    axes.set_ylim(0, larger)
    axes.set_box_aspect(1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.set_xlabel(f"Radius, {_short(comparison.name)}")
    axes.set_ylabel(f"Radius, {_short(comparison.other)}")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, handletextpad=0.2, handlelength=1.2,
                columnspacing=0.9)  # fmt: skip


def _difference(axes: Axes, comparison: Comparison) -> None:
    pairs = comparison.pairs
    last = max(float(pairs.one.max()), float(pairs.other.max()), 0.05)
    distinct = np.unique(np.concatenate([[0.0], pairs.one[pairs.one > 0], pairs.other[pairs.other > 0]]))
    radii = distinct if len(distinct) <= FINEST else np.linspace(0, last, FINEST)
    gap = 100 * difference_curve(pairs, radii)
    low, high = np.clip((gap - 100 * comparison.half_width, gap + 100 * comparison.half_width), -100, 100)
    axes.fill_between(radii, low, high, step="pre", color=COLOURS[0], alpha=0.18, linewidth=0)
    axes.plot(radii, gap, drawstyle="steps-pre", color=COLOURS[0])
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xlim(0, 1.03 * last)
    axes.set_xlabel(RADIUS_LABEL)
    axes.set_ylabel("Difference (points)")
    title = f"{_short(comparison.name)}\nminus {_short(comparison.other)}, $\\sigma$ = {comparison.sigma:g}"
    title += "".join(f"\n{shown(remark.split(':')[0])}" for remark in comparison.unlike)
    axes.set_title(title, loc="left", fontsize=7)


def _short(name: str) -> str:
    return shown(name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…")
