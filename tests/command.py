"""`rrcm` and `python -m cluster` as a user calls them, within the test's process."""

import sys

from cluster import __main__ as launcher
from rrcm_dist.cli import main


def rrcm(monkeypatch, capture, *arguments):
    """(exit code, standard output, standard error) of `rrcm`; `capture` is pytest's capsys or capfd."""
    return _call(monkeypatch, capture, main.main, "rrcm", *arguments)


def cluster(monkeypatch, capture, *arguments):
    """As `rrcm`, of `python -m cluster`."""
    return _call(monkeypatch, capture, launcher.main, "cluster", *arguments)


def _call(monkeypatch, capture, program, *words):
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    try:
        program()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    captured = capture.readouterr()
    return code, captured.out, captured.err
