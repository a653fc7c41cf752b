"""The figure of representation warm-up: probe accuracy over steps, and over cost with and without the teacher's own."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Protocol

from matplotlib.figure import Figure


class Scored(Protocol):
    """A checkpoint with its cost and accuracies by σ."""

    step: int
    gflop: float
    accuracy: dict[float, float]


Curves = Mapping[str, Sequence[Scored]]


def save_plot(seeds: Sequence[tuple[Curves, Callable[[str], float]]], sigmas: Sequence[float], file: Path) -> None:
    """Write a PNG: a row for each σ; thin lines are seeds, thick ones their mean.

    `seeds`: each one's curves by arm, and what an arm's teacher had cost before, GFLOP.
    """
    figure = Figure(figsize=(13, 3.6 * len(sigmas)), layout="constrained")
    columns = {
        "steps of the main run": lambda point, before: point.step,
        "GFLOP, the teacher's pre-training included": lambda point, before: point.gflop + before,
        "GFLOP, the teacher taken as given": lambda point, before: point.gflop,
    }
    for row, sigma in zip(figure.subplots(len(sigmas), len(columns), squeeze=False), sigmas, strict=True):
        for axes, (label, place) in zip(row, columns.items(), strict=True):
            for number, arm in enumerate(seeds[0][0]):
                lines = [
                    [(place(point, before(arm)), 100 * point.accuracy[sigma]) for point in curves[arm]]
                    for curves, before in seeds
                ]
                for line in lines:
                    axes.plot(*zip(*line, strict=True), color=f"C{number}", alpha=0.3, linewidth=0.8)
                # Checkpoints of all seeds lie at the same steps, and so, arm by arm, at the same costs.
                middle = [
                    (mean(x for x, _ in points), mean(y for _, y in points)) for points in zip(*lines, strict=True)
                ]
                axes.plot(*zip(*middle, strict=True), color=f"C{number}", linewidth=2, label=arm)
            axes.set(xlabel=label, ylabel=f"linear probe, σ {sigma:g}, %")
            axes.grid(alpha=0.3)
        row[0].legend(fontsize="small")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
