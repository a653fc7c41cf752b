"""What can go wrong in a user's hands. Every message says what is wrong, where, and how to mend it.

The doors (`rrcm`, `python -m shards`, `python -m cluster`) print these without a traceback and exit with `exit_code`.
A bug of our own is never one of these: it keeps its traceback.
"""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


class RRCMError(Exception):
    """A problem that its reader can mend. `exit_code` is what the process ends with."""

    exit_code = 1


class InvalidInput(RRCMError, ValueError):
    """What was asked for cannot be: an unknown key, an impossible value, a path that is not there (exit code 2)."""

    exit_code = 2


class RunFailure(RRCMError, RuntimeError):
    """It was asked for rightly and failed on the way: a damaged file, a full disk, a non-finite loss (exit code 1)."""

    exit_code = 1
