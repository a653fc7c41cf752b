"""A progress bar off a terminal is a line now and then, with an ETA; other ranks are silent."""

import io
import re
import sys
import time

import pytest
from rich.console import Console

from rrcm_dist import progress
from rrcm_dist.progress import progress_bar


def lines(capsys):
    captured = capsys.readouterr()
    assert captured.out == "", "results are on the standard output, progress is not"
    return captured.err.splitlines()


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass by hand."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(time, "monotonic", lambda: Clock.now)
    return Clock


def test_a_line_tells_how_far_how_long_and_how_much_longer(capsys, clock):
    with progress_bar("pretrain tiny", 100, unit="steps") as bar:
        clock.now += 20
        bar.advance(25, "loss 1.5")
    first, last = lines(capsys)
    assert first == last == "pretrain tiny  25/100 steps  20 s  ETA 60 s  loss 1.5"


def test_the_eta_reckons_with_what_this_process_did(capsys, clock):
    """90 of 100 were done before it was started: they say nothing about its speed."""
    with progress_bar("pretrain tiny", 100, done=90, unit="steps") as bar:
        clock.now += 20
        bar.advance(2)
    assert lines(capsys)[-1] == "pretrain tiny  92/100 steps  20 s  ETA 80 s"


def test_lines_come_no_oftener_than_they_should_and_the_last_one_always(capsys, clock):
    with progress_bar("certify", 1000) as bar:
        for _ in range(1000):
            clock.now += 0.1
            bar.advance()
    told = lines(capsys)
    assert len(told) == 1 + 100 // progress.SECONDS_BETWEEN_LINES
    assert re.fullmatch(r"certify +1000/1000 +100 s  ETA 0 s", told[-1])


def test_a_note_stays_until_there_is_a_new_one(capsys, clock):
    with progress_bar("certify", 10) as bar:
        bar.advance(1, "12 draws/s")
        bar.advance(1)
    assert lines(capsys)[-1].endswith("  12 draws/s")


def test_nothing_done_has_an_eta_without_a_division_by_zero(capsys, clock):
    with progress_bar("certify", 10):
        pass
    assert "0/10" in lines(capsys)[-1]


def test_everything_done_before_has_no_time_left(capsys, clock):
    with progress_bar("building", 10, done=10, unit="images"):
        pass
    assert lines(capsys) == ["building  10/10 images  0 s  ETA 0 s"]


def test_a_hidden_bar_is_silent(capsys, clock):
    with progress_bar("pretrain tiny", 10, show=False) as bar:
        clock.now += 100
        bar.advance(10, "loss 1.5")
    assert lines(capsys) == []


def test_a_terminal_gets_a_live_bar_with_an_eta():
    shown = shown_on_a_terminal("""
from rrcm_dist.progress import progress_bar
with progress_bar('pretrain tiny', 4) as bar:
    for _ in range(4): bar.advance(1, 'loss 1.5')
""")
    for part in ("pretrain tiny", "4/4", "ETA", "loss 1.5"):
        assert part in shown


def test_a_bar_within_a_bar_stands_below_it_and_goes():
    shown = shown_on_a_terminal("""
from rrcm_dist.progress import progress_bar
with progress_bar('pretrain tiny', 4, unit='steps') as bar:
    bar.advance(3)
    with progress_bar('reading', 7, unit='images') as inner:
        inner.advance(7)
        __import__('time').sleep(0.3)
    bar.advance(1)
""")
    both, last = shown.split("reading")[-1], shown.split("pretrain tiny")[-1]
    assert "7/7" in both
    assert "4/4" in last
    assert "reading" not in last


def shown_on_a_terminal(script):
    """On a pseudo-terminal, since the bar asks the real standard error what it is."""
    import os
    import pty
    import subprocess

    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    environment.pop("NO_COLOR", None)
    subprocess.run([sys.executable, "-c", script], stderr=theirs, env=environment, check=True, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    return shown


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_narrow_terminal_the_note_is_cut_and_steps_and_eta_stay(width, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        progress, "Console", lambda stderr: Console(file=screen, force_terminal=True, width=width, color_system=None)
    )
    with progress_bar("pretrain cifar10-pretrain-b", 40, unit="steps") as bar:
        bar.advance(40, "loss 9.291  " + "contrastive 7.484  " * 10)
    line = re.split(r"[\r\n]+", screen.getvalue().replace("\x1b[?25h", "").strip())[-1]
    for told in ("pretrain cifar10-pretrain-b", "40/40 steps", "ETA 0:00:00"):
        assert told in line
    assert ("loss" in line) == (width == 120)
