"""`rrcm` as a user calls it, within the test's process."""

import sys

from rrcm_dist.cli import main


def rrcm(monkeypatch, capsys, *arguments):
    """(exit code, standard output, standard error) of the command."""
    monkeypatch.setattr(sys, "argv", ["rrcm", *map(str, arguments)])
    try:
        main.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err
