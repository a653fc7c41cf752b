"""Processes that live and die together, with small scripts for ranks."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cluster.rank_processes import RankProcess, run_together

pytestmark = pytest.mark.distributed

IGNORES_SIGTERM = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); {rest}"


def ranks_of(folder, *scripts):
    environment = {**os.environ, "WORLD_SIZE": str(len(scripts))}
    return [
        RankProcess(rank, [sys.executable, "-c", script], environment, folder / f"rank-{rank}.log")
        for rank, script in enumerate(scripts)
    ]


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{process}/stat") as file:
        return file.read().split()[2] != "Z"


def test_ranks_that_end_well_leave_no_failures(tmp_path, capfdbinary):
    assert run_together(ranks_of(tmp_path, "print('zero')", "print('one')"), 5) == []
    assert capfdbinary.readouterr().out == b"zero\n"
    assert (tmp_path / "rank-1.log").read_text().splitlines()[1:] == ["one"]


def test_one_bad_end_stops_all_even_those_that_do_not_listen(tmp_path):
    start = time.monotonic()
    deaf = IGNORES_SIGTERM.format(rest="time.sleep(60)")
    failures = run_together(ranks_of(tmp_path, deaf, "print('my reason'); raise SystemExit(7)"), 0.5)
    assert [(f.rank, f.code, f.exit_code, f.last_lines) for f in failures] == [(1, 7, 7, ("my reason",))]
    assert time.monotonic() - start < 10


def test_a_killed_rank_is_told_before_those_that_failed_for_want_of_it(tmp_path):
    suicide = "import os, time; time.sleep(0.3); os.kill(os.getpid(), 9)"
    failures = run_together(ranks_of(tmp_path, "raise SystemExit(1)", suicide), 5)
    assert [(f.rank, f.exit_code) for f in failures] == [(1, 137), (0, 1)]
    assert failures[0].how == "was killed by SIGKILL (out of memory?)"


def test_what_a_rank_started_ends_with_it(tmp_path):
    parent = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid)); raise SystemExit(3)"
    )
    assert [f.code for f in run_together(ranks_of(tmp_path, parent), 5)] == [3]
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def test_logs_of_earlier_starts_are_kept_and_not_shown_again(tmp_path, capfdbinary):
    run_together(ranks_of(tmp_path, "print('first')"), 5)
    failures = run_together(ranks_of(tmp_path, "print('second'); raise SystemExit(1)"), 5)
    assert failures[0].last_lines == ("second",)
    assert capfdbinary.readouterr().out == b"first\nsecond\n"
    assert [line for line in (tmp_path / "rank-0.log").read_text().splitlines() if line[:3] != "---"] == [
        "first", "second",
    ]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_no_rank_is_left_over_when_the_launcher_is_killed(tmp_path):
    launcher = (
        "import os, sys; from pathlib import Path; from cluster.rank_processes import RankProcess, run_together\n"
        f"log = Path({str(tmp_path / 'rank-0.log')!r})\n"
        "script = 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'\n"
        "run_together([RankProcess(0, [sys.executable, '-c', script], {**os.environ, 'WORLD_SIZE': '1'}, log)], 5)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True)
    rank = int(process.stdout.readline())
    assert alive(rank)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while alive(rank) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(rank)
