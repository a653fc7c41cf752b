"""Line charts as HTML with inline SVG: curves stretch with the page while text and strokes keep their size.

The curves lie in an SVG without a fixed aspect ratio (its strokes do not scale); tick labels are HTML placed in per
cent, so they stay readable on a phone. Colours are CSS variables, so light and dark mode share one drawing.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

SCALE = 1000
"""Units of the drawing per axis; a curve's coordinates are rounded to one of them."""
DASHES = ("", "7 5", "2 4", "10 4 2 4")
"""Stroke patterns that tell families apart: solid, dashed, dotted, dash-dotted."""
COLOURS = 6
"""Number of σ colours in the style sheet, --s0 … --s5."""


RADIUS_TITLE = "certified ℓ<sub>2</sub> radius r"


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Attributes:
        label: What it is, as the reading under the pointer says it.
        y: float64 (G,), its values on the chart's grid, in [-1, 1]; NaN from where it ends.
        low, high: float64 (G,), ends of its band, or None.
        colour: A CSS colour.
        dash: One of `DASHES`.
        keys: What switches it on and off: ("s0", "f1") for the first σ of the second family.
        css: Further classes.
    """

    label: str
    y: NDArray[np.float64]
    colour: str
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    dash: str = ""
    keys: tuple[str, ...] = ()
    css: str = ""


@dataclass(frozen=True)
class Points:
    """A few values at radii of their own, drawn as dots on a thin line (a published result)."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Axes:
    """The ranges of a chart and how it speaks of them.

    Attributes:
        x_max: x runs from 0 to this.
        y_max, y_min: y runs between these, as fractions; below 0 for differences, which are told in points.
        x_title: What stands below the x axis, HTML.
        x_ticks: Places on x and their labels; None puts them at round numbers.
        headings: What the reading under the pointer calls each grid point; () for 'r = …'.
    """

    x_max: float
    y_max: float
    y_min: float = 0.0
    x_title: str = RADIUS_TITLE
    x_ticks: tuple[tuple[float, str], ...] | None = None
    headings: tuple[str, ...] = ()

    @property
    def differences(self) -> bool:
        """Whether y is a difference of shares."""
        return self.y_min < 0

    def down(self, y: float) -> float:
        """How far below the top of the chart `y` lies, as a share of its height."""
        return (self.y_max - y) / (self.y_max - self.y_min)


def nice_step(span: float, pieces: int) -> float:
    """The step 1, 2, 2.5 or 5 · 10^k that divides `span` into about `pieces`."""
    raw = span / pieces
    magnitude = 10.0 ** math.floor(math.log10(raw))
    return next(step * magnitude for step in (1, 2, 2.5, 5, 10) if step * magnitude >= raw * 0.999)


def axes_for(largest_radius: float, largest_share: float) -> Axes:
    """Axes that end a little after the data."""
    x_max = max(largest_radius, 0.05) * 1.04
    y_max = min(1.0, math.ceil(largest_share * 10 + 0.2) / 10)
    return Axes(x_max, max(y_max, 0.1))


def grid(axes: Axes, points: int = 321) -> NDArray[np.float64]:
    """float64 (points,): the radii at which curves are drawn."""
    return np.linspace(0.0, axes.x_max, points)


def line_chart(curves: Sequence[Curve], axes: Axes, description: str, points: Sequence[Points] = ()) -> str:
    """HTML of a chart of `curves` over `grid(axes)`; `description` is what a screen reader says."""
    drawing = [_grid_lines(axes)]
    drawing += [_points(item, axes) for item in points]
    drawing += [_band(curve, axes) for curve in curves if curve.low is not None]
    drawing += [_curve(curve, axes) for curve in curves]
    reading = {
        "xMax": axes.x_max,
        "headings": axes.headings,
        "differences": axes.differences,
        "curves": [
            {"label": curve.label, "colour": curve.colour, "dash": curve.dash, "keys": curve.keys,
             "y": [None if math.isnan(value) else round(float(value), 4) for value in curve.y]}
            for curve in curves
        ],
    }  # fmt: skip
    return (
        f'<div class="chart"><div class="plot" role="img" aria-label="{escape(description)}">'
        f'<svg viewBox="0 0 {SCALE} {SCALE}" preserveAspectRatio="none" aria-hidden="true">{"".join(drawing)}</svg>'
        f"{_y_labels(axes)}{_x_labels(axes)}"
        f'<div class="cursor" hidden></div><div class="reading" hidden></div>'
        f'<script type="application/json">{_json(reading)}</script></div>'
        f'<div class="axis-title">{axes.x_title}</div></div>'
    )


def _x_ticks(axes: Axes) -> Sequence[tuple[float, str]]:
    if axes.x_ticks is not None:
        return axes.x_ticks
    step = nice_step(axes.x_max, 8)
    return [(step * k, f"{step * k:g}") for k in range(int(axes.x_max / step) + 1)]


def _y_ticks(axes: Axes) -> list[float]:
    if axes.differences:
        step = nice_step(axes.y_max - axes.y_min, 5)
        return [step * k for k in range(math.ceil(axes.y_min / step), math.floor(axes.y_max / step) + 1)]
    step = 0.2 if axes.y_max > 0.55 else 0.1 if axes.y_max > 0.2 else 0.05
    return [step * k for k in range(int(axes.y_max / step + 1e-9) + 1)]


def _at(x: float, y: float, axes: Axes) -> str:
    return f"{x / axes.x_max * SCALE:.4g} {axes.down(y) * SCALE:.4g}"


def _steps(radii: NDArray[np.float64], y: NDArray[np.float64], axes: Axes) -> list[str]:
    """Corners of the step curve that has y[k] from just after radii[k - 1] up to radii[k]."""
    x, steps = np.repeat(radii, 2)[:-1], np.repeat(y, 2)[1:]
    turns = np.diff(steps) != 0
    corners = np.append(True, turns) | np.append(turns, True)
    return [_at(float(r), float(value), axes) for r, value in zip(x[corners], steps[corners], strict=True)]


def _grid_lines(axes: Axes) -> str:
    rows = "".join(f"M0 {axes.down(y) * SCALE:.4g}H{SCALE}" for y in _y_ticks(axes))
    columns = "".join(f"M{x / axes.x_max * SCALE:.4g} 0V{SCALE}" for x, _ in _x_ticks(axes) if x > 0)
    zero = f'<path class="zero" d="M0 {axes.down(0) * SCALE:.4g}H{SCALE}"/>' if axes.differences else ""
    return f'<path class="grid" d="{rows}"/><path class="grid faint" d="{columns}"/>{zero}'


def _keys(curve: Curve) -> str:
    return f'class="series {curve.css}" data-keys="{" ".join(curve.keys)}" style="--c:{curve.colour}"'


def _length(curve: Curve) -> int:
    """Grid points before the curve ends or has come to 0 for good; beyond, it would only thicken the axis."""
    return len(np.trim_zeros(curve.y[~np.isnan(curve.y)], "b"))


def _band(curve: Curve, axes: Axes) -> str:
    assert curve.low is not None
    assert curve.high is not None
    end = _length(curve)
    radii = grid(axes, len(curve.y))[:end]
    if not end:
        return ""
    outline = " ".join([*_steps(radii, curve.high[:end], axes), *reversed(_steps(radii, curve.low[:end], axes))])
    return f'<path {_keys(curve)} data-part="band" d="M{outline}Z"/>'


def _curve(curve: Curve, axes: Axes) -> str:
    end = min(_length(curve) + 1, int((~np.isnan(curve.y)).sum()))
    dash = f' stroke-dasharray="{curve.dash}"' if curve.dash else ""
    path = " ".join(_steps(grid(axes, len(curve.y))[:end], curve.y[:end], axes))
    return f'<path {_keys(curve)} data-part="line"{dash} d="M{path}"/>'


def _points(item: Points, axes: Axes) -> str:
    inside = [(x, y) for x, y in zip(item.x, item.y, strict=True) if x <= axes.x_max]
    if not inside:
        return ""
    line = " ".join(_at(x, y, axes) for x, y in inside)
    # A line of no length with round ends is a dot that stays round however the drawing is stretched.
    dots = "".join(f"M{_at(x, y, axes)}h0.01" for x, y in inside)
    values = ", ".join(f"{100 * y:.4g} % at {x:g}" for x, y in inside)
    return (
        f'<g class="published"><title>{escape(item.label)}: {values}</title>'
        f'<path class="touch" d="M{line}"/><path class="thin" d="M{line}"/><path class="dots" d="{dots}"/></g>'
    )


def _y_labels(axes: Axes) -> str:
    labels = (f'<span style="top:{100 * axes.down(y):.2f}%">{_y_label(y, axes)}</span>' for y in _y_ticks(axes))
    return f'<div class="y-labels" aria-hidden="true">{"".join(labels)}</div>'


def _y_label(y: float, axes: Axes) -> str:
    if axes.differences:
        return f"{100 * y:+.3g}".replace("-", "−") if y else "0"
    return f"{100 * y:.0f}<i>%</i>"


def _x_labels(axes: Axes) -> str:
    labels = (f'<span style="left:{100 * x / axes.x_max:.2f}%">{text}</span>' for x, text in _x_ticks(axes))
    return f'<div class="x-labels" aria-hidden="true">{"".join(labels)}</div>'


def _json(value: object) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
