"""The figure of bounds through depth."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def save_widths(widths: dict[str, list[float]], file: Path) -> None:
    """Write a PNG: mean radius of the pixels (0) and before each ReLU at initialisation, a line for each arm."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for number, (arm, values) in enumerate(widths.items()):
        axes.plot(range(len(values)), values, "os^Dv"[number % 5] + "-", label=arm, alpha=0.8)
    axes.set(yscale="log", xlabel="ReLU (0: pixels)", ylabel="mean radius of the bounds", title="At initialisation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize="small")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)
