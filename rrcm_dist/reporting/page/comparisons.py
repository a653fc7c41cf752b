"""Runs compared image by image: the difference of certified accuracy at every radius, with its band."""

from collections.abc import Sequence
from html import escape

import numpy as np

from rrcm_dist.reporting.measures.pairing import difference_curve
from rrcm_dist.reporting.page.charts import Axes, Curve, grid, line_chart
from rrcm_dist.reporting.page.drawings import Look, swatch
from rrcm_dist.reporting.summary import Comparison


def difference_charts(comparisons: Sequence[Comparison], look: Look) -> str:
    """One chart a comparison, on common axes."""
    x_max = 1.04 * max(max(float(c.pairs.one.max()), float(c.pairs.other.max()), 0.05) for c in comparisons)
    curves = [_curve(comparison, x_max, look) for comparison in comparisons]
    highest = max(float(curve.high.max()) for curve in curves if curve.high is not None)
    lowest = min(float(curve.low.min()) for curve in curves if curve.low is not None)
    room = 0.04 * (highest - lowest) + 1e-3
    axes = Axes(x_max, highest + room, lowest - room)
    panels = (
        f'<div class="panel"><h3>{swatch(look, c.sigma)}σ = {c.sigma:g}: {escape(c.name)} minus {escape(c.other)}</h3>'
        f"{line_chart([curve], axes, _description(c))}</div>"
        for c, curve in zip(comparisons, curves, strict=True)
    )
    return f'<div class="panels">{"".join(panels)}</div>'


def _curve(comparison: Comparison, x_max: float, look: Look) -> Curve:
    gap = difference_curve(comparison.pairs, grid(Axes(x_max, 1.0)))
    low, high = np.clip((gap - comparison.half_width, gap + comparison.half_width), -1.0, 1.0)
    return Curve(f"{comparison.name} minus {comparison.other}", gap, look.colour(comparison.sigma), low, high)


def _description(comparison: Comparison) -> str:
    said = (f"{100 * paired.difference.value:+.1f} points at {r:g}" for r, paired in comparison.accuracy.items())
    return f"{comparison.name} minus {comparison.other} at σ {comparison.sigma:g}: {', '.join(said)}"
