"""`rrcm radius` with the runner-up, and how it rounds."""

import json
from decimal import Decimal

import pytest
from command import rrcm

from rrcm_dist.certification.statistics.two_sided import simultaneous_bounds, two_sided_radius

GIVEN = ["--successes", "990", "--trials", "1000", "--sigma", "0.5"]


def radius(monkeypatch, capsys, *arguments):
    """(exit code, standard output, standard error) of `rrcm radius`."""
    return rrcm(monkeypatch, capsys, "radius", *arguments)


def test_the_runner_up_is_bounded_besides(monkeypatch, capsys):
    code, out, _ = radius(monkeypatch, capsys, *GIVEN, "--runner-up", "2", "--json")
    values = json.loads(out)
    p_lower, p_upper = simultaneous_bounds(990, 2, 1000, 0.001)
    assert code == 0
    assert (values["runner_up"], values["certified"]) == (2, True)
    assert (values["p_lower"], values["p_upper"]) == (p_lower, p_upper)
    assert values["radius"] == two_sided_radius(p_lower, p_upper, 0.5)


def test_lower_bounds_and_radii_are_printed_rounded_down_and_upper_bounds_up(monkeypatch, capsys):
    for runner_up in ("0", "2", "3", "7", "10"):
        _, out, _ = radius(monkeypatch, capsys, *GIVEN, "--runner-up", runner_up)
        _, exact, _ = radius(monkeypatch, capsys, *GIVEN, "--runner-up", runner_up, "--json")
        values = json.loads(exact, parse_float=Decimal)
        printed = {line.split()[0]: line.split()[1:3] for line in out.splitlines()}
        assert all(full.strip("(),") == str(values[name]) for name, (_, full) in printed.items())
        assert Decimal(printed["p_lower"][0]) <= values["p_lower"]
        assert Decimal(printed["p_upper"][0]) >= values["p_upper"]
        assert Decimal(printed["radius"][0]) <= values["radius"]


def test_the_confidence_is_not_rounded_to_one(monkeypatch, capsys):
    _, out, _ = radius(monkeypatch, capsys, *GIVEN, "--alpha", "1e-9")
    assert "confidence 0.999999999\n" in out


def test_overlapping_bounds_abstain(monkeypatch, capsys):
    _, out, _ = radius(
        monkeypatch, capsys, "--successes", "510", "--trials", "1000", "--sigma", "1", "--runner-up", "490"
    )
    assert "the bounds overlap, so the smoothed classifier abstains" in out


@pytest.mark.parametrize("runner_up", ["11", "-1"])
def test_a_runner_up_that_cannot_be_is_refused(monkeypatch, capsys, runner_up):
    code, out, err = radius(monkeypatch, capsys, *GIVEN, "--runner-up", runner_up)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
