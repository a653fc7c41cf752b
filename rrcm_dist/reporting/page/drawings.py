"""The figures of the page: all curves, families side by side at each σ, best of σ beside published results."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from rrcm_dist.certification.statistics.bounds import round_down
from rrcm_dist.reporting.certificates import Certificates
from rrcm_dist.reporting.measures.accuracy import best_of_sigma_curve, certified_accuracy_curve
from rrcm_dist.reporting.page.charts import COLOURS, DASHES, Axes, Curve, Points, axes_for, grid, line_chart, nice_step
from rrcm_dist.reporting.published import PublishedTable
from rrcm_dist.reporting.summary import Row, Summary, families


@dataclass(frozen=True)
class Look:
    """Which colour a σ has and which stroke a family, the same in every figure of a page."""

    sigmas: tuple[float, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, runs: Sequence[Certificates]) -> "Look":
        """The look of a page on `runs`."""
        return cls(tuple(sorted({run.sigma for run in runs})), tuple(families(runs)))

    def colour(self, sigma: float) -> str:
        """The CSS colour of a noise level."""
        return f"var(--s{self.sigmas.index(sigma) % COLOURS})"

    def dash(self, name: str) -> str:
        """The stroke pattern of a family."""
        return DASHES[self.names.index(name) % len(DASHES)]

    def keys(self, run: Certificates) -> tuple[str, str]:
        """What switches the curve of `run` on and off."""
        return f"s{self.sigmas.index(run.sigma)}", f"f{self.names.index(run.name)}"


def page_axes(runs: Sequence[Certificates]) -> Axes:
    """Axes that all accuracy figures of a page share, so that they can be compared by eye."""
    largest_radius = max(float(run.correct_radius.max()) for run in runs)
    largest_share = max(float(run.correct.mean()) for run in runs)
    return axes_for(largest_radius, largest_share)


def all_curves(runs: Sequence[Certificates], look: Look) -> str:
    """Every run's certified accuracy with its 95 % band, and switches for σ and family."""
    axes = page_axes(runs)
    curves = [_curve(run, axes, look) for run in runs]
    return f"{_switches(look)}{line_chart(curves, axes, _description(runs))}"


def side_by_side(runs: Sequence[Certificates], look: Look) -> str:
    """One small chart per σ that several families share; '' where none is shared."""
    axes = page_axes(runs)
    panels = []
    for sigma in look.sigmas:
        here = [run for run in runs if run.sigma == sigma]
        if len(here) > 1:
            chart = line_chart([_curve(run, axes, look, label=run.name) for run in here], axes, _description(here))
            panels.append(f'<div class="panel"><h3>{swatch(look, sigma)}σ = {sigma:g}</h3>{chart}</div>')
    return f'{stroke_key(look)}<div class="panels">{"".join(panels)}</div>' if panels else ""


def envelopes(runs: Sequence[Certificates], look: Look, published: PublishedTable | None) -> str:
    """Each family's best of σ at every radius, over published results if there are any."""
    axes = page_axes(runs)
    if published is not None:
        farthest = max(axes.x_max / 1.04, *published.radii)
        highest = max(method.accuracy[0] for method in published.methods)
        axes = axes_for(farthest, max(highest, axes.y_max - 0.1))
    curves = [
        Curve(name, best_of_sigma_curve(members, grid(axes)), "var(--ink)", dash=look.dash(name), css="envelope")
        for name, members in families(runs).items()
    ]
    points = (
        [Points(method.name, published.radii, method.accuracy) for method in published.methods] if published else []
    )
    key = (
        f'<span class="key"><i class="published-key"></i>published, {escape(published.title)}</span>'
        if published
        else ""
    )
    description = "Best certified accuracy over the noise levels, against the radius"
    return f"{stroke_key(look, key)}{line_chart(curves, axes, description, points)}"


def acr_rows(summary: Summary, look: Look) -> str:
    """Average certified radius of every run as a dot with its interval on a common scale, grouped by σ."""
    top = max(row.acr.high if np.isfinite(row.acr.high) else row.acr.value for row in summary.rows)
    top = max(top, 1e-9) * 1.04
    groups = []
    for sigma in look.sigmas:
        lines = "".join(_acr_row(row, look, top) for row in summary.rows if row.sigma == sigma)
        groups.append(f'<div class="acr-group"><h3>{swatch(look, sigma)}σ = {sigma:g}</h3><div>{lines}</div></div>')
    return f'<div class="acr">{"".join(groups)}</div>'


def outcomes(runs: Sequence[Certificates], look: Look) -> str:
    """Where each run's images end up: correct by certified radius (stacked), abstained, wrong."""
    largest = max(max(float(run.correct_radius.max()) for run in runs), 0.05)
    step = nice_step(largest, 5)
    edges = [step * k for k in range(int(np.ceil(largest / step - 1e-9)) + 1)]
    edges[-1] = np.inf
    bars = [_outcome_bar(run, edges, look) for run in runs]
    failed = any(run.failures for run in runs)
    return f'{_outcome_key(edges, failed)}<div class="outcomes">{"".join(bars)}</div>'


def _acr_row(row: Row, look: Look, top: float) -> str:
    marker = f"family-{look.names.index(row.name) % len(DASHES)}"
    return (
        f'<div class="acr-row"><span class="acr-name">{escape(row.name)}</span>'
        f'<span class="track" style="--c:{look.colour(row.sigma)}">{_interval_bar(row.acr.low, row.acr.high, top)}'
        f'<b class="{marker}" style="left:{100 * row.acr.value / top:.2f}%"></b></span>'
        f'<span class="acr-value">{row.acr.value:.3f}</span></div>'
    )


def _curve(run: Certificates, axes: Axes, look: Look, label: str = "") -> Curve:
    value, low, high = certified_accuracy_curve(run, grid(axes))
    label = label or (f"σ {run.sigma:g}" if len(look.names) == 1 else f"{run.name}, σ {run.sigma:g}")
    return Curve(label, value, look.colour(run.sigma), low, high, look.dash(run.name), look.keys(run))


def _description(runs: Sequence[Certificates]) -> str:
    said = (
        f"{run.name} at σ {run.sigma:g}: {100 * run.correct.mean():.0f} % at radius 0, largest radius "
        f"{round_down(max(float(run.correct_radius.max()), 0.0), 2)}"
        for run in runs
    )
    return f"Certified accuracy against radius. {'; '.join(said)}."


def family_key(look: Look) -> str:
    """Which colour is which σ, and which stroke which family where there are several."""
    sigmas = "".join(f'<span class="key">{swatch(look, sigma)}σ {sigma:g}</span>' for sigma in look.sigmas)
    names = stroke_key(look) if len(look.names) > 1 else ""
    return f'<div class="keys">{sigmas}</div>{names}'


def swatch(look: Look, sigma: float) -> str:
    """A dot in the colour of a noise level."""
    return f'<i class="swatch" style="--c:{look.colour(sigma)}"></i>'


def _stroke(dash: str) -> str:
    pattern = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<svg class="stroke" viewBox="0 0 34 8" aria-hidden="true"><path d="M1 4H33"{pattern}/></svg>'


def stroke_key(look: Look, further: str = "") -> str:
    """Which stroke is which family."""
    keys = "".join(f'<span class="key">{_stroke(look.dash(name))}{escape(name)}</span>' for name in look.names)
    return f'<div class="keys">{keys}{further}</div>'


def _switches(look: Look) -> str:
    sigmas = "".join(
        f'<button type="button" aria-pressed="true" data-key="s{k}">{swatch(look, sigma)}σ {sigma:g}</button>'
        for k, sigma in enumerate(look.sigmas)
    )
    names = "".join(
        f'<button type="button" aria-pressed="true" data-key="f{k}">{_stroke(look.dash(name))}{escape(name)}</button>'
        for k, name in enumerate(look.names)
    )
    bands = '<button type="button" aria-pressed="true" data-key="bands"><i class="band-key"></i>95 % bands</button>'
    return f'<div class="keys switches" role="group" aria-label="Curves to show">{sigmas}{names}{bands}</div>'


def _interval_bar(low: float, high: float, top: float) -> str:
    if not np.isfinite(low):
        return ""
    return f'<em style="left:{100 * low / top:.2f}%;width:{100 * (high - low) / top:.2f}%"></em>'


def _shade(k: int, bins: int) -> str:
    """Share of full colour for radius bin k of `bins`; the largest radii are the strongest."""
    return f"{25 + 75 * (k + 1) / bins:.0f}%"


def _bin_text(edges: Sequence[float], k: int) -> str:
    return f"≥ {edges[k]:g}" if np.isinf(edges[k + 1]) else f"{edges[k]:g} – {edges[k + 1]:g}"


def _outcome_bar(run: Certificates, edges: Sequence[float], look: Look) -> str:
    counts, _ = np.histogram(run.radius[run.correct], bins=edges)
    bins = len(counts)
    parts = [
        (f"radius {_bin_text(edges, k)}", "certified", f"--p:{_shade(k, bins)};", int(counts[k]))
        for k in reversed(range(bins))
    ]
    wrong = int((~run.correct & ~run.abstained & ~run.failed).sum())
    parts += [("abstains", "abstains", "", int(run.abstained.sum())), ("failed", "failed", "", int(run.failed.sum()))]
    parts.append(("wrong", "wrong", "", wrong))
    segments = "".join(
        f'<span class="{kind}" style="{shade}width:{100 * count / run.images:.3f}%" '
        f'title="{label}: {count} of {run.images} images"></span>'
        for label, kind, shade, count in parts
        if count
    )
    spoken = ", ".join(f"{label} {100 * count / run.images:.0f} %" for label, _, _, count in parts if count)
    return (
        f'<div class="outcome"><span class="outcome-name">{swatch(look, run.sigma)}σ {run.sigma:g}'
        f"<small>{escape(run.name)}</small></span>"
        f'<span class="bar" role="img" aria-label="{escape(spoken)}">{segments}</span></div>'
    )


def _outcome_key(edges: Sequence[float], failed: bool) -> str:
    bins = len(edges) - 1
    certified = "".join(
        f'<span class="key"><i class="box certified" style="--p:{_shade(k, bins)}"></i>{_bin_text(edges, k)}</span>'
        for k in reversed(range(bins))
    )
    kinds = ("abstains", "failed", "wrong") if failed else ("abstains", "wrong")
    others = "".join(f'<span class="key"><i class="box {kind}"></i>{kind}</span>' for kind in kinds)
    return f'<div class="keys"><span class="key">correct, radius</span>{certified}{others}</div>'
