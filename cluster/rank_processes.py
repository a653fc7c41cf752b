"""Processes that live and die together: one ends badly, all are stopped; one of them is listened to."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO

from cluster.die_with_parent import die_with_parent

POLL_SECONDS = 0.05
SETTLE_SECONDS = 1.0
"""After the first bad end, so long do the others have to end by themselves, so that the cause is among those told."""
TAIL_LINES, TAIL_BYTES = 15, 16384
"""How much of a failed rank's log is shown."""


@dataclass
class RankProcess:
    """One rank: what it executes, and where its output goes (appended, both streams)."""

    rank: int
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    end_with_parent: signal.Signals = signal.SIGTERM
    """What the kernel sends it when the thread that started it dies."""
    _process: subprocess.Popen | None = field(default=None, repr=False)
    _log_start: int = 0

    def start(self) -> None:
        """Start it, in a process group of its own with whatever it starts."""
        with open(self.log, "ab") as file:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            file.write(f"--- {now}: rank {self.rank} of {self.environment['WORLD_SIZE']}\n".encode())
            file.flush()
            self._log_start = file.tell()
            self._process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, self.end_with_parent),
            )

    @property
    def code(self) -> int | None:
        """What it ended with, below 0 the signal that killed it; None while it runs."""
        assert self._process is not None, "not started"
        return self._process.poll()

    @property
    def last_lines(self) -> tuple[str, ...]:
        """What it printed last, since it was started."""
        with open(self.log, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, size - TAIL_BYTES))
            return tuple(file.read().decode(errors="replace").splitlines()[-TAIL_LINES:])

    def follow(self) -> IO[bytes]:
        """The log, opened where this start begins."""
        file = open(self.log, "rb")  # noqa: SIM115
        file.seek(self._log_start)
        return file

    def send(self, number: int) -> None:
        """Send a signal to the rank itself."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it and all that it started, at once."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@dataclass(frozen=True)
class RankFailure:
    """A rank that ended badly by itself."""

    rank: int
    code: int
    """Its exit code; below 0 the signal that killed it."""
    log: Path
    last_lines: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """As shells have it: 128 + the signal for one that was killed."""
        return 128 - self.code if self.code < 0 else self.code

    @property
    def how(self) -> str:
        """In words."""
        if self.code >= 0:
            return f"ended with exit code {self.code}"
        name = signal.Signals(-self.code).name
        return f"was killed by {name}" + (" (out of memory?)" if self.code == -signal.SIGKILL else "")


def run_together(ranks: Sequence[RankProcess], stop_seconds: float) -> list[RankFailure]:
    """Start the ranks and wait for their end; what the first one prints is shown meanwhile.

    Ctrl-C and SIGTERM are passed on to every rank, which decides what to do. When a rank ends badly, the others are
    asked to end (SIGTERM), and killed after `stop_seconds`. Nothing that was started outlives this call.

    Returns the ranks that ended badly before they were asked to, first those that were killed by a signal (which the
    others then suffer from), then in the order in which they ended; empty where all ended well.
    """
    try:
        for rank in ranks:
            rank.start()
        with _passing_on_signals(ranks) as asked, ranks[0].follow() as shown:
            return _watch(ranks, stop_seconds, asked, shown)
    finally:
        for rank in ranks:
            rank.kill()


def _watch(
    ranks: Sequence[RankProcess], stop_seconds: float, asked: Sequence[int], shown: IO[bytes]
) -> list[RankFailure]:
    failures: dict[int, RankFailure] = {}
    first_failure = last_call = None
    while True:
        running = [rank for rank in ranks if rank.code is None]
        _show(shown)
        now = time.monotonic()
        if last_call is None:
            bad = [rank for rank in ranks if rank.code and rank.rank not in failures]
            failures.update({r.rank: RankFailure(r.rank, r.code or 0, r.log, r.last_lines) for r in bad})
            first_failure = first_failure or (now if failures else None)
            if first_failure is not None and now - first_failure > SETTLE_SECONDS:
                last_call = now
                if not asked:
                    for rank in running:
                        rank.send(signal.SIGTERM)
        if not running or (last_call is not None and now - last_call > stop_seconds):
            return sorted(failures.values(), key=lambda failure: failure.code >= 0)
        time.sleep(POLL_SECONDS)


def _show(shown: IO[bytes]) -> None:
    sys.stdout.buffer.write(shown.read())
    sys.stdout.flush()


@contextmanager
def _passing_on_signals(ranks: Sequence[RankProcess]) -> Iterator[list[int]]:
    """Within, SIGINT and SIGTERM go to every rank; yields those that have come."""
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        if not asked:
            print(
                "stopping after this step, with a checkpoint; Ctrl-C once more stops at once",
                file=sys.stderr,
                flush=True,
            )
        asked.append(number)
        for rank in ranks:
            rank.send(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
