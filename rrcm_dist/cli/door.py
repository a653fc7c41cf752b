"""What every door of the project does with an error: one message, no traceback for a user's mistake, an exit code."""

import errno
import sys
from collections.abc import Callable

from rrcm_dist.errors import INTERRUPTED, RRCMError
from rrcm_dist.files import disk_failure

_INTERRUPTED_MESSAGE = "interrupted: everything finished so far is kept; the same command goes on from there"


def enter(run: Callable[[], object]) -> None:
    """Call `run` (a typer app) and end the process: 0 done, 1 failed, 2 asked for wrongly, 130 interrupted."""
    try:
        run()
    except RRCMError as error:
        _end(f"error: {error}", error.exit_code)
    except KeyboardInterrupt:
        _end(_INTERRUPTED_MESSAGE, INTERRUPTED)
    except SystemExit as end:  # how typer ends every command, and what it makes of Ctrl-C
        if end.code == INTERRUPTED:
            _end(_INTERRUPTED_MESSAGE, INTERRUPTED)
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) or isinstance(error, PermissionError):
            failure = disk_failure(error, error.filename or "the output")
            _end(f"error: {failure}", failure.exit_code)
        raise


def _end(message: str, code: int) -> None:
    print(message, file=sys.stderr, flush=True)
    sys.exit(code)
