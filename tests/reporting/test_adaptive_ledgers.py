"""Ledgers of mode adaptive: what stopping saved, what failed, what the probabilities are; and all of it is said."""

import json
import math

import numpy as np
import pytest

from rrcm_dist.certification.ledger.reader import LedgerReader
from rrcm_dist.reporting.certificates import Source
from rrcm_dist.reporting.measures.agreement import share_above, ticks_until
from rrcm_dist.reporting.measures.effort import draws_vary, effort
from rrcm_dist.reporting.reading.ledgers import read_ledger
from rrcm_dist.reporting.reading.logs import read_log
from rrcm_dist.reporting.report import build_report


@pytest.fixture
def run(write_adaptive_ledger):
    (run,) = read_ledger(write_adaptive_ledger("ledger.sqlite"))
    return run


def test_a_failed_image_is_not_certified_and_its_reason_is_kept(run):
    assert run.image.tolist() == [0, 10, 20, 30, 40, 50]
    assert (run.predict[-1], run.radius[-1], run.correct[-1]) == (-1, 0.0, False)
    assert np.isnan([run.seconds[-1], run.agreement[-1], run.draws[-1]]).all()
    assert run.failures == {50: "logits are not finite in block 12\nTraceback: …"}


def test_an_image_whose_counts_were_completed_after_it_failed_is_certified(write_adaptive_ledger, monkeypatch):
    path = write_adaptive_ledger("ledger.sqlite")
    failures = LedgerReader.failures
    monkeypatch.setattr(
        LedgerReader, "failures", lambda self, sigma: [f for g in failures(self, sigma) for f in (g, _at(g, 10))]
    )
    (run,) = read_ledger(path)
    assert run.image.tolist() == [0, 10, 20, 30, 40, 50]
    assert list(run.failures) == [50]


def _at(failure, image):
    return type(failure)(image, f"key{image}", failure.label, failure.reason)


def test_draws_time_and_savings_are_those_of_the_blocks(run, tmp_path):
    with LedgerReader(tmp_path / "ledger.sqlite") as ledger:
        certificates = ledger.certificates(0.5)
    draws = np.array([c.n0 + c.n for c in certificates])
    cost = effort(run)
    assert draws_vary(run)
    assert (cost.mean_draws, cost.total_draws, cost.most_draws) == (draws.mean(), draws.sum(), draws.max())
    assert cost.saving == pytest.approx(20_100 / draws.mean())
    assert cost.hours == pytest.approx(draws.sum() / 1000 / 3600)
    assert (cost.device, cost.hours_name) == ("cuda", "GPU-hours")


def test_what_a_log_does_not_say_is_not_known(write_log):
    (run,) = read_log(write_log("sigma_0.25.tsv"))
    cost = effort(run)
    assert math.isnan(cost.mean_draws)
    assert math.isnan(cost.saving)
    assert (cost.mean_seconds, cost.hours_name) == (15.4, "hours")
    assert not draws_vary(run)


def test_p_a_is_a_share_of_draws_in_a_ledger_and_a_bound_from_the_radius_in_a_log(run, write_log):
    assert run.provenance.agreement == "estimate"
    assert run.agreement[:5] == pytest.approx([1.0, 0.97, 0.8, 0.5, 0.8], abs=0.005)
    (log,) = read_log(write_log("sigma_0.25.tsv"))
    assert log.provenance.agreement == "bound"
    assert log.agreement == pytest.approx([0.977249868, np.nan, 0.841344746, 0.998650102], nan_ok=True)


def test_the_share_above_p_falls_from_all_that_do_not_abstain_to_none(run):
    quantile, share = share_above(run)
    assert (quantile[0], share[-1]) == (0.0, 0.0)
    assert (np.diff(quantile) >= 0).all()
    assert (np.diff(share) <= 0).all()
    for p in (0.75, 0.9, 0.99):
        place = np.searchsorted(quantile, {0.75: 0.6745, 0.9: 1.2816, 0.99: 2.3263}[p])
        assert share[place] == pytest.approx((run.agreement >= p).sum() / 6)


def test_labels_of_probabilities_keep_their_distance():
    places = [place for place, _ in ticks_until(4.0, apart=0.1)]
    assert places[0] == 0
    assert min(np.diff(places)) >= 0.4


def test_the_report_says_what_is_adaptive_what_failed_and_why(write_adaptive_ledger):
    report = build_report([Source(write_adaptive_ledger("ledger.sqlite", (0.25, 0.5)))])
    notes = "\n".join(report.notes)
    assert "1 of 6 images of adaptive digits at σ 0.25 failed and count as not certified: 1 × logits are not" in notes
    assert "Traceback" not in notes
    assert "decided by a time-uniform confidence sequence. ACR is a lower value than with fixed n" in notes
    assert report.runs[0].provenance.settings["mode"] == "adaptive"
    assert "n at most 20000" in report.markdown()
    row = json.loads(report.json())["rows"][0]
    assert row["failed"] == 1
    assert row["draws"]["saving"] > 1
    assert row["device"] == "cuda"
