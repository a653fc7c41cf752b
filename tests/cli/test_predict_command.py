"""`rrcm predict` on ledgers: from the estimation counts that are there, without a draw."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from command import rrcm

from rrcm_dist.certification.blocks import Block, BlockCounts, Stage
from rrcm_dist.certification.ledger.file import RunIdentity
from rrcm_dist.certification.ledger.writer import Ledger
from rrcm_dist.certification.statistics.prediction import equality_p_value

IDENTITY = RunIdentity(
    seed=0, n0=10, alpha=0.001, block=100, dataset="d" * 64, classes=3, image_size=32, noise="cpu", precision="fp32"
)
COUNTS = {0.25: {0: [[95, 5, 0], [90, 10, 0]], 1: [[50, 50, 0], [40, 60, 0]], 2: [[0, 10, 90], [100, 0, 0]]},
          0.5: {0: [[0, 100, 0], [0, 98, 2]]}}  # fmt: skip
"""Of each estimation block, by σ and image; every label is 0."""


def counted(image, sigma, stage, number, counts):
    counts = np.array(counts, dtype=np.int64)
    return BlockCounts(Block(image, f"key{image}", sigma, stage, number, int(counts.sum())), counts, "here", 0.25)


@pytest.fixture
def run(tmp_path):
    """A run folder with a ledger."""
    with Ledger(tmp_path / "run" / "ledger.sqlite", IDENTITY, 200, "test") as ledger:
        ledger.add_images([(image, f"key{image}", 0) for image in range(3)])
        for sigma, images in COUNTS.items():
            ledger.set_classifier(sigma, "w" * 64, "somewhere")
            for image, blocks in images.items():
                ledger.add([counted(image, sigma, Stage.SELECTION, 0, [0, 0, 10])])
                ledger.add(
                    counted(image, sigma, Stage.ESTIMATION, number, counts) for number, counts in enumerate(blocks)
                )
    return tmp_path / "run"


def rows(out):
    return [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]


def test_every_noise_level_of_a_run_is_predicted(run, monkeypatch, capsys):
    before = (run / "ledger.sqlite").read_bytes()
    code, out, err = rrcm(monkeypatch, capsys, "predict", run, "--output", run / "p.tsv")
    assert code == 0, err
    assert rows(out) == [["0.25", "3", "33.3", "66.7", "0.0", "200", "0.001"],
                         ["0.5", "1", "0.0", "0.0", "100.0", "200", "0.001"]]  # fmt: skip
    with open(run / "p.tsv", encoding="utf-8") as file:
        written = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["idx"], row["sigma"], row["predict"], row["correct"], row["key"]) for row in written] == [
        ("0", "0.25", "0", "1", "key0"), ("1", "0.25", "-1", "0", "key1"), ("2", "0.25", "-1", "0", "key2"),
        ("0", "0.5", "1", "0", "key0"),
    ]  # fmt: skip
    assert float(written[1]["p_value"]) == equality_p_value(110, 90)
    assert (written[2]["top"], written[2]["top_draws"], written[2]["second"], written[2]["n"]) == (
        "0",
        "100",
        "2",
        "200",
    )
    assert (run / "ledger.sqlite").read_bytes() == before


def test_fewer_draws_another_alpha_and_one_noise_level(run, monkeypatch, capsys):
    _, out, _ = rrcm(monkeypatch, capsys, "predict", run / "ledger.sqlite", "--n", 100, "--sigma", 0.25)
    assert rows(out) == [["0.25", "3", "33.3", "33.3", "33.3", "100", "0.001"]]
    _, out, _ = rrcm(monkeypatch, capsys, "predict", run / "ledger.sqlite", "--alpha", 0.2, "--sigma", 0.25)
    assert rows(out) == [["0.25", "3", "33.3", "33.3", "33.3", "200", "0.2"]]


@pytest.mark.parametrize(("arguments", "message"), [
    (["--sigma", 1], "has no sigma 1: it has 0.25, 0.5"), (["--n", 150], "multiple of 100"), (["--alpha", 1], "alpha"),
])  # fmt: skip
def test_what_the_ledger_cannot_answer_is_refused(run, monkeypatch, capsys, arguments, message):
    code, out, err = rrcm(monkeypatch, capsys, "predict", run, *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_a_folder_without_a_ledger_and_a_ledger_without_an_image_are_refused(tmp_path, monkeypatch, capsys):
    code, _, err = rrcm(monkeypatch, capsys, "predict", tmp_path)
    assert (code, "there is no ledger at" in err) == (2, True)
    Ledger(tmp_path / "ledger.sqlite", IDENTITY, 200).close()
    code, _, err = rrcm(monkeypatch, capsys, "predict", tmp_path)
    assert (code, "no finished image" in err) == (2, True)


def test_draws_that_decided_when_to_stop_predict_nothing(tmp_path, monkeypatch, capsys):
    adaptive = replace(IDENTITY, mode="adaptive", first_block=100, growth=0.15)
    with Ledger(tmp_path / "ledger.sqlite", adaptive, 200) as ledger:
        ledger.set_classifier(0.5, "w" * 64, "somewhere")
    code, _, err = rrcm(monkeypatch, capsys, "predict", tmp_path)
    assert (code, "mode adaptive" in err) == (2, True)
