"""The figure of the scaling model: images/s over GPUs, and what a step's time goes to."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.scaling_model import Prediction


def save_plot(curves: dict[str, list[Prediction]], file: Path, title: str) -> None:
    """Write a PNG: images/s of every curve beside the ideal, and below each curve its step's parts."""
    figure = Figure(figsize=(5 * (1 + len(curves)), 4), layout="constrained")
    speed, *parts = figure.subplots(1, 1 + len(curves))
    for (name, predictions), part in zip(curves.items(), parts, strict=True):
        gpus = [prediction.gpus for prediction in predictions]
        (line,) = speed.plot(gpus, [p.images_per_second for p in predictions], "o-", label=name)
        first = predictions[0]
        ideal = [first.images_per_second / first.gpus * count for count in gpus]
        speed.plot(gpus, ideal, ":", color=line.get_color(), label=f"{name}, ideal")
        _stack(part, predictions, name)
    speed.set(xscale="log", yscale="log", xlabel="GPUs", ylabel="images/s", title=title)
    speed.set_xticks(gpus, [str(count) for count in gpus], minor=False)
    speed.minorticks_off()
    speed.legend(fontsize="small")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)


def _stack(axes: Axes, predictions: list[Prediction], name: str) -> None:
    """Shares of a step's time at each number of GPUs."""
    places = [str(prediction.gpus) for prediction in predictions]
    below = [0.0] * len(predictions)
    parts = {
        "arithmetic": [p.arithmetic / p.seconds for p in predictions],
        "fixed": [p.fixed / p.seconds for p in predictions],
        "communication": [p.communication / p.seconds for p in predictions],
    }
    for part, values in parts.items():
        axes.bar(places, values, bottom=below, label=part)
        below = [start + value for start, value in zip(below, values, strict=True)]
    axes.set(title=name, xlabel="GPUs", ylabel="share of the step")
    axes.legend(fontsize="small", loc="lower left")
