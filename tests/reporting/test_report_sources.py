"""What is found in folders and ledgers, and which runs may not stand together."""

import numpy as np
import pytest

from rrcm_dist.certification.blocks import Block, BlockCounts, Stage
from rrcm_dist.certification.ledger.file import RunIdentity
from rrcm_dist.certification.ledger.reader import LedgerReader
from rrcm_dist.certification.ledger.writer import Ledger
from rrcm_dist.certification.log import log_name
from rrcm_dist.certification.log import write_log as write_log_of
from rrcm_dist.certification.statistics.bounds import certified_radius, clopper_pearson_lower
from rrcm_dist.errors import InvalidInput
from rrcm_dist.reporting.certificates import Source
from rrcm_dist.reporting.reading.sources import read_sources
from rrcm_dist.reporting.report import build_report
from rrcm_dist.reporting.tables import terminal_tables

AGREEING = {0: 1000, 1: 900, 2: 400}
"""Of 1000 estimation draws of each image, those that agree with the class chosen."""


def certificates_of(sources):
    certificates, verifications = read_sources(sources)
    assert not verifications
    return certificates


def write_ledger(path, sigmas=(0.5,), name="digits", images=AGREEING, image_size=8, key="key"):
    identity = RunIdentity(0, 100, 0.001, 1000, "set", 10, image_size, "cpu", "fp32")
    with Ledger(path, identity, 1000, name) as ledger:
        ledger.add_images([(image, f"{key}{image}", 5) for image in images])
        for sigma in sigmas:
            ledger.set_classifier(sigma, "0" * 64, "weights")
            for image, agreeing in images.items():
                for stage, draws, agree in ((Stage.SELECTION, 100, 100), (Stage.ESTIMATION, 1000, agreeing)):
                    counts = np.zeros(10, dtype=np.int64)
                    counts[5], counts[0] = agree, draws - agree
                    ledger.add(
                        [BlockCounts(Block(image, f"{key}{image}", sigma, stage, 0, draws), counts, "host", 0.5)]
                    )
    return path


def keys(runs):
    return [(run.name, run.sigma) for run in runs]


def test_a_ledger_is_bounded_when_it_is_read(tmp_path):
    (run,) = certificates_of([Source(write_ledger(tmp_path / "ledger.sqlite"))])
    expected = certified_radius(clopper_pearson_lower([1000, 900], 1000, 0.001), 0.5)
    assert (run.name, run.sigma) == ("digits", 0.5)
    assert run.predict.tolist() == [5, 5, -1]
    assert run.radius.tolist() == [*expected.tolist(), 0.0]
    assert run.seconds.tolist() == [1.0, 1.0, 1.0]
    assert (run.provenance.settings["n"], run.provenance.settings["alpha"]) == ("1000", "0.001")


@pytest.mark.parametrize(
    ("image_size", "key", "title"),
    [(32, "5/0000", None), (32, "test_batch/0000", "CIFAR-10"), (32, "dog/000", "CIFAR-10"), (64, "dog/000", None)],
)
def test_published_results_stand_beside_a_ledger_by_its_facts_and_not_by_its_name(tmp_path, image_size, key, title):
    path = tmp_path / "cifar10" / "ledger.sqlite"
    path.parent.mkdir()
    write_ledger(path, name="cifar10-certify-b", image_size=image_size, key=key)
    table = build_report([Source(path)], [0.5]).published
    assert (table and table.title) == title


def test_tables_name_the_draws_and_alpha_of_a_ledger(tmp_path):
    report = build_report([Source(write_ledger(tmp_path / "ledger.sqlite", (0.25, 0.5)))], [0.5])
    assert "- digits, σ 0.25, 0.5: n0 100, n 1000, α 0.001" in report.markdown()
    (table,) = terminal_tables(report.summary)
    assert table.caption == "σ 0.25, 0.5: n0 100, n 1000, α 0.001"
    assert table.columns[1].header == "images"


def test_logs_beside_a_ledger_are_its_copies_and_do_not_count_twice(tmp_path, write_log):
    ledger = write_ledger(tmp_path / "run" / "ledger.sqlite")
    log = write_log("run/sigma_0.50.tsv")
    for sources in ([Source(tmp_path / "run")], [Source(log), Source(ledger)], [Source(tmp_path), Source(ledger)]):
        assert [run.provenance.kind for run in certificates_of(sources)] == ["ledger"]


def test_the_log_of_a_ledger_on_its_own_reports_the_same(tmp_path):
    ledger = write_ledger(tmp_path / "ledger.sqlite")
    log = tmp_path / "elsewhere" / log_name(0.5)
    with LedgerReader(ledger) as reader:
        write_log_of(log, reader.certificates(0.5), 0.5, 0.001)
    (from_ledger,), (from_log,) = certificates_of([Source(ledger)]), certificates_of([Source(log)])
    for field in ("image", "label", "predict", "radius", "correct", "seconds"):
        assert np.array_equal(getattr(from_ledger, field), getattr(from_log, field)), field
    assert not from_log.provenance.rounded
    assert from_log.provenance.settings == {"n0": "100", "n": "1000", "alpha": "0.001"}


def test_a_ledger_without_a_finished_image_is_an_error(tmp_path):
    with pytest.raises(InvalidInput, match="holds no finished image yet"):
        certificates_of([Source(write_ledger(tmp_path / "ledger.sqlite", images={}))])


def test_a_folder_is_searched_for_logs_and_other_files_are_left_alone(tmp_path, write_log):
    write_log("model/noise_0.25/test/sigma_0.25")
    write_log("model/noise_0.50/test/sigma_0.50")
    (tmp_path / "model" / "README").write_text("Certified with n = 1000.\n")
    (tmp_path / "model" / "notes.txt").write_text("nothing here\n")
    assert keys(certificates_of([Source(tmp_path / "model")])) == [("model", 0.25), ("model", 0.5)]


def test_a_name_makes_a_family_of_everything_below_a_path(tmp_path, write_log):
    write_log("a/sigma_0.25.tsv")
    write_log("a/run-sigma_0.50.tsv")
    write_log("b/sigma_0.25.tsv")
    runs = certificates_of([Source(tmp_path / "a", "pre-trained"), Source(tmp_path / "b", "from scratch")])
    assert sorted(keys(runs)) == [("from scratch", 0.25), ("pre-trained", 0.25), ("pre-trained", 0.5)]


def test_the_same_file_given_twice_is_read_once(write_log):
    path = write_log("a/sigma_0.25.tsv")
    assert keys(certificates_of([Source(path), Source(path.parent)])) == [("a", 0.25)]


def test_two_runs_of_one_name_and_sigma_must_be_told_apart(tmp_path, write_log):
    one, other = write_log("a/sigma_0.25.tsv"), write_log("b/sigma_0.25.tsv")
    with pytest.raises(InvalidInput, match="two runs are called 'mine'") as caught:
        certificates_of([Source(one, "mine"), Source(other, "mine")])
    assert str(one) in str(caught.value)
    assert str(other) in str(caught.value)


def test_a_sigma_that_contradicts_every_file_is_an_error(write_log):
    with pytest.raises(InvalidInput, match=r"sigma 0.5 was given, but every file states its own \(0.25\)"):
        certificates_of([Source(write_log("sigma_0.25.tsv"), sigma=0.5)])


def test_alpha_bounds_the_counts_of_a_ledger_anew_and_is_told(tmp_path):
    ledger = write_ledger(tmp_path / "ledger.sqlite")
    report = build_report([Source(ledger, alpha=0.05)], [0.5])
    expected = certified_radius(clopper_pearson_lower([1000, 900], 1000, 0.05), 0.5)
    assert report.runs[0].radius.tolist() == [*expected.tolist(), 0.0]
    assert "n0 100, n 1000, α 0.05, made at α 0.001" in report.markdown()
    assert report.summary.rows[0].guarantee.alpha == 0.05


def test_an_alpha_that_contradicts_every_log_is_an_error(tmp_path, write_log):
    columns = ("idx", "label", "predict", "radius", "correct", "alpha", "time")
    log = write_log("sigma_0.25.tsv", [(0, 1, 1, 0.5, 1, 0.001)], columns)
    with pytest.raises(InvalidInput, match=r"alpha 0\.01 was given, but every log states its own"):
        certificates_of([Source(log, alpha=0.01)])


def test_runs_of_one_recipe_are_called_by_their_folders(tmp_path, write_log):
    for folder in ("one/certify", "two/certify"):
        (tmp_path / folder).mkdir(parents=True)
        write_ledger(tmp_path / folder / "ledger.sqlite", (0.25, 0.5))
    runs = certificates_of([Source(tmp_path)])
    assert keys(runs) == [(name, sigma) for name in ("one/certify", "two/certify") for sigma in (0.25, 0.5)]
    write_log("other/plain_sigma_0.50.tsv")
    assert {run.name for run in certificates_of([Source(tmp_path)])} == {"one/certify", "two/certify", "plain"}


def test_runs_of_one_recipe_in_one_folder_are_an_error(tmp_path):
    for file in ("one.sqlite", "two.sqlite"):
        write_ledger(tmp_path / file)
    with pytest.raises(InvalidInput, match="two runs are called 'digits'"):
        certificates_of([Source(tmp_path)])


def test_missing_paths_empty_folders_and_no_paths_are_errors(tmp_path):
    with pytest.raises(InvalidInput, match=r"there is nothing at .*absent"):
        certificates_of([Source(tmp_path / "absent")])
    with pytest.raises(InvalidInput, match="holds neither a ledger nor a certification log"):
        certificates_of([Source(tmp_path)])
    with pytest.raises(InvalidInput, match="nothing to report on"):
        certificates_of([])
