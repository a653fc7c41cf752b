"""What a run says nothing of is a dash and null, not a measured 0; what is not made alike is not compared unsaid."""

import csv
import io
import json

import numpy as np
import pytest
from rich.console import Console

from rrcm_dist.certification.ledger.reading import FailedImage
from rrcm_dist.certification.log import log_name, write_log
from rrcm_dist.certification.statistics import bounds, confidence_sequence
from rrcm_dist.certification.statistics.certificates import ImageCounts, certify_counts
from rrcm_dist.config.schema import DEFAULT_RADII
from rrcm_dist.reporting.certificates import OUT_OF_REACH, UNDECIDED, Source
from rrcm_dist.reporting.reading.logs import read_log
from rrcm_dist.reporting.report import build_report
from rrcm_dist.reporting.tables import terminal_tables

COLUMNS = ("idx", "label", "predict", "radius", "correct", "n0", "n", "alpha", "time")


@pytest.fixture
def write_fixed_log(write_log):
    """A log of fixed n whose α and n stand in it, of the images and labels of the adaptive ledger."""

    def write(name, n=1000, alpha=0.001, radius=0.3):
        rows = [(image, 5, 5, radius if image else 0.7, 1, 100, n, alpha) for image in range(0, 60, 10)]
        return write_log(name, rows, COLUMNS)

    return write


def printed(report):
    console = Console(width=160, record=True, file=io.StringIO())
    for table in terminal_tables(report.summary):
        console.print(table)
    return " ".join(console.export_text().split())


def test_without_radii_a_report_takes_those_of_its_ledgers(write_adaptive_ledger, write_log):
    ledger, log = write_adaptive_ledger("ledger.sqlite"), write_log("sigma_0.25.tsv")
    assert build_report([Source(ledger)]).summary.radii == (0.0, 0.25, 0.5, 1.0)
    assert build_report([Source(ledger), Source(log)]).summary.radii == (0.0, 0.25, 0.5, 1.0)
    assert build_report([Source(log)]).summary.radii == tuple(DEFAULT_RADII)
    assert build_report([Source(ledger)], [0.5]).summary.radii == (0.5,)


def test_mode_adaptive_says_nothing_beside_its_grid_nor_beyond_its_reach(write_adaptive_ledger):
    report = build_report([Source(write_adaptive_ledger("ledger.sqlite", (0.25, 0.5)))], [0.25, 0.3, 1.0, 3.0])
    low, high = report.summary.rows
    assert confidence_sequence.largest_radius(20_000, 0.001, 0.25) < 1.0
    assert low.gaps == {0.3: UNDECIDED, 1.0: OUT_OF_REACH, 3.0: OUT_OF_REACH}
    assert high.gaps == {0.3: UNDECIDED, 3.0: OUT_OF_REACH}
    (envelope,) = report.summary.envelopes
    assert (set(envelope.best), envelope.best[1.0][0]) == ({0.25, 1.0}, 0.5)
    row = json.loads(report.json())["rows"][0]
    assert row["certified_accuracy"] == {"0.25": low.certified_accuracy[0.25].value} | dict.fromkeys(
        ("0.3", "1.0", "3.0")
    )
    assert row["unanswered"]["1.0"] == OUT_OF_REACH
    line = next(csv.DictReader(io.StringIO(report.csv())))
    assert line["accuracy_at_0.3"] == line["accuracy_at_1_low"] == line["guaranteed_at_1"] == ""
    assert f"–: {OUT_OF_REACH}, or {UNDECIDED}." in printed(report)


def test_mode_adaptive_without_radius_0_tells_no_accuracy_there(write_adaptive_ledger, monkeypatch):
    ledger = write_adaptive_ledger("ledger.sqlite")
    monkeypatch.setattr("rrcm_dist.reporting.certificates.Certificates.gap", lambda self, r: UNDECIDED * (r == 0))
    report = build_report([Source(ledger)])
    assert json.loads(report.json())["rows"][0]["clean_accuracy"] is None
    assert "Smoothed accuracy" not in report.html()


def test_a_radius_out_of_reach_of_fixed_n_is_a_dash_in_every_form(write_fixed_log):
    reach = bounds.largest_radius(1000, 0.001, 0.25)
    report = build_report([Source(write_fixed_log("sigma_0.25.tsv"))], [0.5, 1.0])
    (row,) = report.summary.rows
    assert 0.5 < reach < 1.0
    assert (list(row.certified_accuracy), row.gaps) == ([0.5], {1.0: OUT_OF_REACH})
    note = f"–: {OUT_OF_REACH}."
    assert note in printed(report)
    assert note in report.markdown()
    assert "--: out of reach of n draws at this" in report.latex()
    assert note in report.html()
    assert printed(report).count("±") == 2  # of ACR, and at 0.5


def test_published_logs_keep_their_zeros(write_log):
    report = build_report([Source(write_log("sigma_0.25.tsv"))], [0.5, 3.0])
    assert report.summary.rows[0].certified_accuracy[3.0].value == 0
    assert report.summary.rows[0].gaps == {}


def test_radii_that_one_run_says_nothing_of_are_not_compared(write_fixed_log, write_adaptive_ledger):
    sources = [Source(write_fixed_log("logs/sigma_0.50.tsv"), "fixed"), Source(write_adaptive_ledger("ledger.sqlite"))]
    report = build_report(sources, [0.25, 0.3, 1.8])
    (comparison,) = report.summary.comparisons
    assert list(comparison.accuracy) == [0.25]
    assert comparison.gaps == {0.3: UNDECIDED, 1.8: OUT_OF_REACH}
    assert json.loads(report.json())["comparisons"][0]["accuracy_difference"]["1.8"] is None


def test_another_mode_is_said_first_and_beside_and_is_no_headline_of_acr(write_fixed_ledger, write_adaptive_ledger):
    fixed, adaptive = (
        Source(write_fixed_ledger("fixed.sqlite"), "fixed"),
        Source(write_adaptive_ledger("ledger.sqlite")),
    )
    report = build_report([fixed, adaptive])
    remark = "fixed n = 1,000 against adaptive, n at most 20,000: adaptive stops"
    assert remark in report.notes[0]
    assert f"fixed minus adaptive digits, σ 0.5: {remark}" in report.markdown()
    page = report.html()
    cards = page.split('<div class="cards">')[1].split("<section>")[0]
    assert "Widest difference at r = 0.5" in cards
    assert "difference in ACR" not in cards
    assert remark in page.split("Compared image by image")[1].split("<svg")[0]


def test_another_n_or_alpha_is_said_first(write_fixed_ledger):
    paths = write_fixed_ledger("a.sqlite"), write_fixed_ledger("b.sqlite", 2000, 0.01)
    report = build_report([Source(path, path.stem) for path in paths])
    assert report.notes[:2] == (
        "Not made alike (a and b): n 1,000 against n 2,000: the larger n certifies more by itself.",
        "Not made alike (a and b): α 0.001 against α 0.01: the larger α certifies more by itself.",
    )
    assert "Widest difference in ACR" in report.html()
    wrong = [note for note in report.notes if "is the chance" in note]
    assert ["of a at σ 0.5" in wrong[0], "of b at σ 0.5" in wrong[1]] == [True, True]


def test_runs_made_alike_have_no_such_remark(write_fixed_ledger):
    paths = write_fixed_ledger("a.sqlite"), write_fixed_ledger("b.sqlite")
    report = build_report([Source(path, path.stem) for path in paths])
    assert not any("made alike" in note for note in report.notes)
    assert [comparison.unlike for comparison in report.summary.comparisons] == [()]


def test_a_failed_image_is_told_apart_from_one_that_abstains(write_adaptive_ledger):
    report = build_report([Source(write_adaptive_ledger("ledger.sqlite"))], [0.5])
    (run,), (row,) = report.runs, report.summary.rows
    assert (run.predict[-1], run.failed.tolist()) == (-1, [False] * 5 + [True])
    assert row.abstain.value == np.mean(run.predict[:-1] == -1) * 5 / 6
    assert "| Abstain % | Failed % |" in report.markdown()
    assert "| 16.7 | 16.7 |" in report.markdown()
    assert "failed" in printed(report)
    assert '<th scope="col">Failed</th>' in report.html()


def test_alpha_of_a_ledger_of_mode_adaptive_is_changed_with_a_warning(write_adaptive_ledger):
    report = build_report([Source(write_adaptive_ledger("ledger.sqlite"), alpha=0.0001)])
    assert "α 0.0001, made at α 0.001" in report.markdown()
    assert any("stopped at another α than the bounds are read at" in note for note in report.notes)


def test_equal_radii_have_no_interval_of_their_mean(write_log):
    report = build_report([Source(write_log("sigma_0.25.tsv", [(i, 1, 1, 0.616, 1) for i in range(4)]))], [0.5])
    assert np.isnan([report.summary.rows[0].acr.low, report.summary.rows[0].acr.high]).all()
    assert "±0.000" not in printed(report)


def test_a_report_of_radii_that_nothing_is_known_of_is_all_dashes(write_adaptive_ledger, write_fixed_ledger, tmp_path):
    paths = write_adaptive_ledger("ledger.sqlite", (0.25, 0.5)), write_fixed_ledger("fixed.sqlite")
    report = build_report([Source(path) for path in paths], [2.5], dataset="cifar10")
    report.write(tmp_path / "out", figures=False)
    assert [row.certified_accuracy for row in report.summary.rows] == [{}, {}, {}]
    assert [envelope.best for envelope in report.summary.envelopes] == [{}, {}]
    assert report.summary.comparisons[0].accuracy == {}
    assert "nan" not in report.markdown() + report.latex() + report.html()
    assert printed(report).count("±") == 3  # of ACR


def test_an_image_given_up_counts_as_not_certified_in_the_log_as_in_the_ledger(tmp_path):
    certificates = certify_counts([ImageCounts(0, "zero", 1, 0.5, np.array([0, 10]), np.array([5, 995]), 1.0)], 0.001)
    path = tmp_path / log_name(0.5)
    write_log(path, certificates, 0.5, 0.001, [FailedImage(3, "three", 1, "NaN")])
    (run,) = read_log(path)
    assert run.image.tolist() == [0, 3]
    assert run.correct.tolist() == [True, False]
    assert run.failed.tolist() == [False, True]
    assert run.draws[0] == 1010
    assert np.isnan(run.draws[1])
    assert "1 of 2 images" in build_report([Source(path)], dataset="none").markdown()
