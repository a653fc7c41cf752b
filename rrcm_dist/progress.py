"""Progress bars with an ETA, one look for the whole project: live on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

SECONDS_BETWEEN_LINES = 15.0
"""How often a bar prints a line where there is no terminal to redraw."""


class Bar(Protocol):
    """Something that counts up to a total."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """`count` more units are done; `note` stands beside the bar (loss parts, images/s)."""


@contextmanager
def progress_bar(what: str, total: int, done: int = 0, unit: str = "", show: bool = True) -> Iterator[Bar]:
    """A bar for `total` units of which `done` were done before; `show=False` (other ranks) counts in silence.

    A bar within another one's time stands below it and goes when it is done.
    """
    console = Console(stderr=True)
    if not show:
        yield _Silent()
    elif console.is_terminal:
        with _live_display(console) as live:
            task = live.add_task(what, total=total, completed=done, unit=unit, note="")
            try:
                yield _Live(live, task)
            finally:
                if len(live.task_ids) > 1:
                    live.remove_task(task)
    else:
        bar = _Lines(what, total, done, unit)
        yield bar
        bar.finish()


_displays: list[Progress] = []
"""The live display of this process, if there is one: two of them would write over each other."""


@contextmanager
def _live_display(console: Console) -> Iterator[Progress]:
    if _displays:
        yield _displays[0]
        return
    # The note takes what the others leave, and is cut where that is too little.
    note = TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"), TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(), note,
    )  # fmt: skip
    with Progress(*columns, console=console, expand=True) as live:
        _displays.append(live)
        try:
            yield live
        finally:
            _displays.clear()


class _Silent:
    def advance(self, count: int = 1, note: str = "") -> None:
        pass


class _Live:
    def __init__(self, live: Progress, task: object) -> None:
        self._live, self._task = live, task

    def advance(self, count: int = 1, note: str = "") -> None:
        self._live.update(self._task, advance=count, **({"note": note} if note else {}))  # type: ignore[arg-type]


class _Lines:
    def __init__(self, what: str, total: int, done: int, unit: str) -> None:
        self._what, self._total, self._done, self._unit = what, total, done, unit
        self._first, self._start, self._last, self._note = done, time.monotonic(), time.monotonic(), ""

    def advance(self, count: int = 1, note: str = "") -> None:
        self._done += count
        self._note = note or self._note
        if time.monotonic() - self._last > SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self._print()

    def finish(self) -> None:
        self._print()

    def _print(self) -> None:
        elapsed_seconds = time.monotonic() - self._start
        rate = (self._done - self._first) / max(elapsed_seconds, 1e-9)
        left = max(self._total - self._done, 0)
        eta = f"{left / rate:.0f} s" if rate else "?" if left else "0 s"
        line = f"{self._what}  {self._done}/{self._total} {self._unit}  {elapsed_seconds:.0f} s  ETA {eta}"
        print(f"{line}  {self._note}".rstrip(), file=sys.stderr, flush=True)
