"""All figures of a report, as files: figures/NAME.pdf, .svg and .png."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rrcm_dist.reporting.certificates import Certificates
from rrcm_dist.reporting.published import PublishedTable
from rrcm_dist.reporting.summary import Summary, families

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_figures(
    folder: Path, runs: Sequence[Certificates], summary: Summary, published: PublishedTable | None
) -> list[Path]:
    """Draw and write every figure that `runs` give reason for; returns the paths, in the order of the report."""
    from rrcm_dist.reporting.figures.style import drawing, save

    with drawing():
        return [path for name, figure in _figures(runs, summary, published) for path in save(figure, folder, name)]


def _figures(
    runs: Sequence[Certificates], summary: Summary, published: PublishedTable | None
) -> "Iterator[tuple[str, Figure]]":
    from rrcm_dist.reporting.figures.accuracy import envelopes_figure, family_figure
    from rrcm_dist.reporting.figures.comparison import comparison_figure
    from rrcm_dist.reporting.figures.distributions import agreement_figure, draws_figure

    by_name = families(runs)
    called = _file_names(list(by_name))
    for name, members in by_name.items():
        yield f"certified-accuracy-{called[name]}", family_figure(members)
        yield f"probability-{called[name]}", agreement_figure(members)
        draws = draws_figure(members)
        if draws is not None:
            yield f"draws-{called[name]}", draws
    if len(by_name) > 1 or published is not None:
        yield "best-of-sigma", envelopes_figure(by_name, published)
    for comparison in summary.comparisons:
        pair = f"{called[comparison.name]}-{called[comparison.other]}"
        yield f"comparison-{pair}-sigma-{comparison.sigma:g}", comparison_figure(comparison)


def _file_names(names: Sequence[str]) -> dict[str, str]:
    """A part of a file's name for each name, no two alike."""
    from rrcm_dist.reporting.figures.style import slug

    parts: dict[str, str] = {}
    for name in names:
        part, number = slug(name), 2
        while part in parts.values():
            part, number = f"{slug(name)}-{number}", number + 1
        parts[name] = part
    return parts
