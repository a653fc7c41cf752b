"""The door of `rrcm` for a rank that something else than a person started: it ends with what the run is worth."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from rrcm_dist.cli.door import enter
from rrcm_dist.errors import INTERRUPTED


def go_through(*also: signal.Signals) -> NoReturn:
    """Do what `sys.argv` asks `rrcm` for, and end the process.

    A rank that was asked to stop, and did, ends with 0: whether the run is finished, its checkpoint says. `also` are
    signals that ask it to stop as SIGTERM does.
    """
    signal.signal(signal.SIGTERM, _stop_before_training)
    for asking in also:
        signal.signal(asking, _stop)
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    from rrcm_dist.cli.main import build_app

    code: object = 0
    try:
        enter(build_app())
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    sys.stderr.flush()
    number = code if isinstance(code, int) else int(code is not None)
    # Threads of the communication libraries may abort a rank while Python winds down, and hide its exit code.
    os._exit(0 if number == INTERRUPTED else number)


def _stop_before_training(number: int, frame: FrameType | None) -> None:
    """Nothing was trained yet: nothing to keep."""
    os._exit(0)


def _stop(number: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    go_through()
