"""One set of numbers in every output: Markdown, CSV, JSON, terminal and page."""

import csv
import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from rrcm_dist.errors import InvalidInput
from rrcm_dist.reporting.certificates import Source
from rrcm_dist.reporting.published import published_tables
from rrcm_dist.reporting.report import build_report
from rrcm_dist.reporting.tables import terminal_tables

RADII = (0.5, 0.0, 0.25, 1.0)
BETTER = ((0, 3, 3, 1.0, 1), (20, 7, 7, 0.2, 1), (40, 4, 4, 1.0, 1), (60, 7, 7, 0.75, 1))


@pytest.fixture
def report(tmp_path, write_log):
    """Two families, of which 'good' has two noise levels."""
    write_log("good/sigma_0.25.tsv")
    write_log("good/sigma_0.50.tsv", BETTER)
    write_log("plain/sigma_0.50.tsv")
    sources = [Source(tmp_path / "good", "good <b>"), Source(tmp_path / "plain", "plain")]
    return build_report(sources, RADII, dataset="none", notes=["A remark of one's own."])


def test_json_rows_have_every_measure_by_radius(report):
    document = json.loads(report.json())
    row = document["rows"][0]
    assert (row["name"], row["sigma"], row["images"]) == ("good <b>", 0.25, 4)
    assert row["certified_accuracy"] == {"0.0": 0.5, "0.25": 0.5, "0.5": 0.25, "1.0": 0.0}
    assert (row["acr"], row["abstain"], row["clean_accuracy"], row["median_seconds"]) == (0.1875, 0.25, 0.5, 15.4)
    low, high = row["certified_accuracy_interval"]["0.25"]
    assert 0 < low < 0.5 < high < 1


def test_the_envelope_takes_the_best_sigma_of_one_family_only(report):
    good, plain = json.loads(report.json())["envelopes"]
    assert good["certified_accuracy"] == {"0.0": 1.0, "0.25": 0.75, "0.5": 0.75, "1.0": 0.5}
    assert good["sigma"] == {"0.0": 0.5, "0.25": 0.5, "0.5": 0.5, "1.0": 0.5}
    assert plain["certified_accuracy"]["0.5"] == 0.25


def test_families_are_compared_at_the_sigma_that_they_share(report):
    (comparison,) = json.loads(report.json())["comparisons"]
    assert (comparison["name"], comparison["other"], comparison["sigma"]) == ("good <b>", "plain", 0.5)
    assert comparison["acr_difference"] == pytest.approx((1.0 + 0.2 + 1.0 + 0.75) / 4 - 0.1875)


def test_one_image_gives_null_intervals_in_json_and_empty_cells_in_csv(write_log):
    path = write_log("sigma_0.25.tsv", [(0, 1, 1, 0.3, 1)], times=["-"])
    report = build_report([Source(path)], [0.0])
    row = json.loads(report.json())["rows"][0]
    assert (row["acr_interval"], row["median_seconds"]) == (None, None)
    (line,) = csv.DictReader(io.StringIO(report.csv()))
    assert (line["acr"], line["acr_low"], line["median_seconds"]) == ("0.3", "", "")


def test_csv_and_json_hold_the_same_numbers(report):
    lines = list(csv.DictReader(io.StringIO(report.csv())))
    rows = json.loads(report.json())["rows"]
    assert len(lines) == len(rows) == 3
    for line, row in zip(lines, rows, strict=True):
        assert float(line["acr"]) == row["acr"]
        assert float(line["accuracy_at_0.25"]) == row["certified_accuracy"]["0.25"]
        assert float(line["accuracy_at_1_high"]) == row["certified_accuracy_interval"]["1.0"][1]


def test_markdown_has_a_line_per_run_and_marks_the_envelope(report):
    first_table = report.markdown().split("\n## ")[0]
    lines = [line for line in first_table.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + 3 + 1
    assert "50.0 (15.0–85.0)" in lines[2]
    assert "best of σ" in lines[4]
    assert "A remark of one's own." in report.markdown()


def test_the_terminal_tables_fit_eighty_columns_at_the_default_radii(tmp_path, write_log):
    rows = [(image, 1, 1, 0.25 * (image % 12), 1) for image in range(1000)]
    report = build_report([Source(write_log("sigma_0.25.tsv", rows))])
    console = Console(width=80, record=True, file=io.StringIO())
    for table in terminal_tables(report.summary):
        console.print(table)
    text = console.export_text()
    assert "…" not in text
    assert "100.0" in text


def test_radii_that_cannot_be_are_errors(write_log):
    path = write_log("sigma_0.25.tsv")
    for radii in ([-0.5], [float("nan")], [float("inf")], []):
        with pytest.raises(InvalidInput, match="radi"):
            build_report([Source(path)], radii)


def test_the_output_folder_holds_every_form_and_the_figures(tmp_path, write_log):
    build_report([Source(write_log("sigma_0.25.tsv"))], output=tmp_path / "out" / "deep")
    written = sorted(file.name for file in (tmp_path / "out" / "deep").iterdir())
    assert written == ["figures", "report.csv", "report.html", "report.json", "report.md", "report.tex"]


def test_an_output_that_is_a_file_is_an_error(write_log):
    path = write_log("sigma_0.25.tsv")
    with pytest.raises(InvalidInput, match="is a file: give a folder"):
        build_report([Source(path)], output=path)


def test_published_results_are_chosen_by_name_or_on_request(write_log):
    def title(path, dataset="auto"):
        table = build_report([Source(path)], [0.5], dataset=dataset).published
        return table and table.title

    assert title(write_log("plain/sigma_0.25.tsv")) is None
    assert title(write_log("cohen_cifar10-noise_0.25.tsv")) == "CIFAR-10"
    assert title(write_log("ImageNet/sigma_0.25.tsv")) == "ImageNet"
    assert title(write_log("ImageNet/sigma_0.25.tsv"), "none") is None
    assert title(write_log("plain/sigma_0.25.tsv"), "imagenet") == "ImageNet"
    with pytest.raises(InvalidInput, match="no published results on 'mnist': give one of imagenet, cifar10"):
        title(write_log("plain/sigma_0.25.tsv"), "mnist")


def test_published_tables_are_complete_and_fall_with_the_radius():
    tables = published_tables()
    assert [len(tables[name].methods) for name in ("imagenet", "cifar10")] == [9, 8]
    for table in tables.values():
        for method in table.methods:
            assert len(method.accuracy) == len(table.radii)
            assert 1 > method.accuracy[0] > method.accuracy[-1] > 0
            assert list(method.accuracy) == sorted(method.accuracy, reverse=True)


def test_caveats_speak_of_these_very_runs(report, write_log):
    assert any("4 images" in note and "25.0 points" in note for note in report.notes)
    assert any("three significant digits" in note for note in report.notes)
    single = build_report([Source(write_log("alone/sigma_0.25.tsv", [(0, 1, 1, 0.4723105, 1)]))])
    assert not any("Best of σ" in note or "digits" in note for note in single.notes)


def test_reporting_never_imports_torch():
    code = "import sys, rrcm_dist.reporting.report, rrcm_dist.cli.report_command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
