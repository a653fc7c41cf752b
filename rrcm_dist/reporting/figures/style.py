"""How figures for papers look: column widths, type, colours that survive colour blindness and a grey printer.

Figures are made without pyplot, so nothing outside them changes. Their bytes depend on the numbers alone: no dates, and
identifiers from a fixed salt. Type is embedded as TrueType (PDF) or drawn as outlines (SVG).
"""

import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from rrcm_dist.files import whole_file

COLUMN = 3.25
"""Width of a column in inches."""
PAGE = 6.75
"""Width of a page of two columns in inches."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#7b3f99", "#b8860b", "#56606f")
"""Dark enough for thin lines; after Okabe & Ito's palette for colour-blind readers (2008)."""
STROKES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.6)),
    (0, (1.2, 1.2)),
    (0, (6, 1.4, 1.2, 1.4)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (9, 2)),
)
"""Line patterns, so that curves differ in grey as well."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
GREY = "#6b6b6b"
LEGEND_LINE = 0.13
"""Height of a line of a legend in inches."""
SHORT_LABEL = 16
"""Letters of a label up to which three stand beside each other in a column."""
DOTS_PER_INCH = 300
SETTINGS: Mapping[str, Any] = {
    "font.family": ["STIXGeneral", "DejaVu Sans"],
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.labelspacing": 0.25,
    "legend.borderaxespad": 0.2,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.2,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.4,
    "axes.grid": True,
    "axes.axisbelow": True,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "rrcm-dist",
}
METADATA: Mapping[str, dict[str, None]] = {
    "pdf": {"CreationDate": None, "ModDate": None},
    "svg": {"Date": None},
    "png": {"Software": None},
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw and save in the house style; matplotlib's own settings are as before afterwards."""
    with rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a name in a script that the fonts lack
        rcdefaults()  # what a user's matplotlibrc says must not change the figure
        for name, value in SETTINGS.items():
            rcParams[name] = value  # type: ignore[index]
        yield


def sheet(width: float = COLUMN, height: float = 2.3, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure of so many inches with `panels` axes side by side."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02))
    axes = figure.subplots(1, panels, squeeze=False)[0]
    return figure, list(axes)


def legend_below(figure: Figure, axes: Axes, *further: Artist) -> None:
    """The legend of `axes` and `further`, below the axes, where no curve runs; the figure grows by its lines."""
    handles, labels = axes.get_legend_handles_labels()
    labels += [str(artist.get_label()) for artist in further]
    columns = 3 if max(map(len, labels)) <= SHORT_LABEL else 2
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + LEGEND_LINE * math.ceil(len(labels) / columns))
    figure.legend([*handles, *further], labels, loc="outside lower center", ncols=columns, columnspacing=1.2)


def percent_axis(axes: Axes, label: str) -> None:
    """The y axis from 0 up, in per cent; `axes` was drawn in per cent."""
    axes.set_ylim(bottom=0)
    axes.set_ylabel(label)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))


def shown(name: str) -> str:
    """A name as matplotlib shows it literally: no dollar of it begins a formula."""
    return name.replace("$", r"\$")


def slug(name: str) -> str:
    """A name as part of a file's name: small letters, digits, dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "run"


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `figure` as NAME.pdf, .svg and .png into `folder`; each file appears whole."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, not once a format
    paths = []
    for suffix, metadata in METADATA.items():
        path = folder / f"{name}.{suffix}"
        with whole_file(path) as aside:
            figure.savefig(aside, format=suffix, dpi=DOTS_PER_INCH, metadata=metadata)
        paths.append(path)
    return paths
