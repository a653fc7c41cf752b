"""Figures for papers: there in three formats, the same bytes every time, type embedded, the width of a column."""

import os
import re
import subprocess
import sys

import matplotlib
import pytest

from rrcm_dist.reporting.certificates import Source
from rrcm_dist.reporting.figures.files import write_figures
from rrcm_dist.reporting.measures.effort import round_counts
from rrcm_dist.reporting.report import build_report

LOG = "idx\tlabel\tpredict\tradius\tcorrect\n0\t3\t3\t0.5\t1\n1\t7\t-1\t0.0\t0\n2\t4\t4\t0.25\t1\n"
DRAW = """
import sys
from pathlib import Path
from rrcm_dist.reporting.certificates import Source
from rrcm_dist.reporting.figures.files import write_figures
from rrcm_dist.reporting.report import build_report
folder = Path(sys.argv[1])
report = build_report([Source(folder / "a", "A b"), Source(folder / "b", "a-B")], dataset="none")
write_figures(Path(sys.argv[2]), report.runs, report.summary, report.published)
"""


def drawn(report, folder):
    write_figures(folder, report.runs, report.summary, report.published)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """A folder with two runs on the same three images, and their figures' bytes by file name, drawn in this process."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "sigma_0.50.tsv").write_text(LOG.replace("0.25", "0.3") if name == "b" else LOG)
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9}):
        report = build_report([Source(folder / "a", "A b"), Source(folder / "b", "a-B")], dataset="none")
        files = drawn(report, folder / "figures")
        assert matplotlib.rcParams["font.size"] == 30
    assert dict(matplotlib.rcParams) == before
    return folder, files


def test_every_figure_is_there_as_pdf_svg_and_png(tmp_path, write_log, write_adaptive_ledger):
    write_log("good/sigma_0.50.tsv")
    ledger = write_adaptive_ledger("ledger.sqlite", (0.25, 0.5))
    report = build_report([Source(tmp_path / "good", "good $x_1$ 犬"), Source(ledger)], dataset="cifar10")
    stems = {"best-of-sigma", "certified-accuracy-good-x-1", "certified-accuracy-adaptive-digits",
             "probability-good-x-1", "probability-adaptive-digits", "draws-adaptive-digits"}  # fmt: skip
    files = {f"{stem}.{suffix}" for stem in stems for suffix in ("pdf", "svg", "png")}
    assert set(drawn(report, tmp_path / "figures")) == files


def test_names_alike_but_for_punctuation_get_files_of_their_own(two_runs):
    names = {name for name in two_runs[1] if name.endswith(".pdf")}
    assert names == {
        "best-of-sigma.pdf", "certified-accuracy-a-b.pdf", "certified-accuracy-a-b-2.pdf", "probability-a-b.pdf",
        "probability-a-b-2.pdf", "comparison-a-b-a-b-2-sigma-0.5.pdf",
    }  # fmt: skip


def test_another_process_at_another_time_draws_the_same_bytes_whatever_the_users_settings(two_runs, tmp_path):
    folder, files = two_runs
    again = tmp_path / "again"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", DRAW, str(folder), str(again)], check=True, env=environment)
    assert {path.name: path.read_bytes() for path in again.iterdir()} == files


def test_type_is_embedded_and_the_width_is_that_of_a_column(two_runs):
    _, files = two_runs
    single, double = files["certified-accuracy-a-b.pdf"], files["comparison-a-b-a-b-2-sigma-0.5.pdf"]
    assert b"/FontFile2" in single
    assert b"/Type3" not in single
    assert float(re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", single)[1]) == 3.25 * 72
    assert float(re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", double)[1]) == 6.75 * 72
    assert b"<text" not in files["certified-accuracy-a-b.svg"]


def test_legends_stand_below_the_axes_and_bands_end_at_100_points(write_fixed_ledger, write_adaptive_ledger):
    from rrcm_dist.reporting.figures.accuracy import family_figure
    from rrcm_dist.reporting.figures.comparison import comparison_figure
    from rrcm_dist.reporting.figures.distributions import agreement_figure, draws_figure
    from rrcm_dist.reporting.figures.style import drawing

    paths = write_adaptive_ledger("ledger.sqlite", (0.25, 0.5)), write_fixed_ledger("fixed.sqlite")
    report = build_report([Source(path) for path in paths])
    with drawing():
        for draw in (family_figure, agreement_figure, draws_figure):
            figure = draw(report.runs[:2])
            figure.draw_without_rendering()
            (axes,), (legend,) = figure.axes, figure.legends
            assert legend.get_window_extent().y1 <= axes.get_tightbbox().y0 + 1
            assert axes.get_legend() is None
        figure = comparison_figure(report.summary.comparisons[0])
    low, high = figure.axes[1].dataLim.intervaly
    assert -100 <= low < high <= 100
    assert "against fixed n = 1,000" in figure.axes[1].get_title(loc="left")


def test_axes_of_draws_have_several_round_counts():
    assert round_counts(110, 100_100) == [1000, 10_000, 100_000]
    for low, high in ((1100, 20_100), (9_500, 10_600), (17_000, 20_100), (2000, 2003)):
        counts = round_counts(low, high)
        assert 3 <= len(counts) <= 8
        assert low <= min(counts) < max(counts) <= high


def test_matplotlib_is_loaded_only_when_figures_are_drawn():
    code = "import sys, rrcm_dist.reporting.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_runs_without_any_certified_image_still_have_figures(write_log, tmp_path):
    log = write_log("sigma_0.25.tsv", [(0, 1, -1, 0.0, 0), (1, 1, 2, 0.1, 0)])
    assert len(drawn(build_report([Source(log)]), tmp_path / "figures")) == 6
