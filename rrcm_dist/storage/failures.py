"""What a store's failure means: something that waiting mends, or something to tell its reader at once, in words."""

import errno
import socket

from rrcm_dist.errors import InvalidInput, RRCMError, RunFailure

WAIT_FOR = (408, 425, 429)
"""Statuses of 4xx that pass by themselves: timed out, too early, too many requests."""
_CREDENTIALS = (
    "for s3 set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile in ~/.aws (FSSPEC_S3_ANON=true asks without), "
    "and AWS_ENDPOINT_URL where the store is not Amazon's"
)


class NotInStore(InvalidInput):
    """There is no such file in the store."""


def lasting(error: BaseException, what: str, place: str, known: bool) -> RRCMError | None:
    """The error to raise at once for a failure that does not pass by itself; None for one that may.

    `what` is the URL asked for, `known` says whether the store has ever answered this run: then even its name not being
    found is taken for a passing failure.
    """
    causes = _chain(error)
    status = next((code for code in map(_status, causes) if code is not None), None)
    if isinstance(error, RRCMError):
        return error
    if isinstance(error, RuntimeError) and "cannot schedule new futures" in str(error):
        return RunFailure(f"{what} was not waited for: this process ends")
    if any(type(cause).__name__ in ("NoCredentialsError", "PartialCredentialsError") for cause in causes):
        return InvalidInput(f"{place}: no credentials were found for this store: {_CREDENTIALS}")
    if status is not None:
        return _of_status(status, error, what, place)
    if any(isinstance(cause, PermissionError) for cause in causes):
        return _forbidden("", error, what)
    if isinstance(error, FileNotFoundError) and all(isinstance(c, FileNotFoundError | LookupError) for c in causes):
        return NotInStore(f"{what} is not there: mend the URL, or put it there")
    if isinstance(error, NotImplementedError):
        return InvalidInput(f"{place} cannot do this ({error or 'not supported'}): name another kind of store")
    if any("certificate" in type(cause).__name__.lower() for cause in causes):
        return InvalidInput(f"{place}: its certificate is not trusted ({error}): mend it, or name the store otherwise")
    unknown_host = any(isinstance(c, socket.gaierror) and c.errno == socket.EAI_NONAME for c in causes)
    if unknown_host and not known:
        return InvalidInput(f"{place}: there is no such host: mend the URL")
    if any(isinstance(c, OSError) and c.errno in (errno.ENOSPC, errno.EDQUOT) for c in causes):
        return InvalidInput(f"{place}: no space is left there ({error})")
    if isinstance(error, ValueError | TypeError) and "Param" in type(error).__name__:
        return InvalidInput(f"{what} cannot be asked for ({error}): mend the URL")
    return None


def in_words(error: BaseException) -> str:
    """A failure on one line."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = " ".join(str(error).split())
    return text if text and len(text) < 300 else f"{type(error).__name__} {text[:300]}".strip()


def _of_status(status: int, error: BaseException, what: str, place: str) -> RRCMError | None:
    if status in (401, 403):
        return _forbidden(f" (status {status})", error, what)
    if status == 404 and "bucket" in str(error).lower():
        return InvalidInput(f"{place}: there is no such bucket: mend the URL, or AWS_ENDPOINT_URL")
    if status in (404, 410):
        return NotInStore(f"{what} is not there (status {status}): mend the URL, or put it there")
    if 400 <= status < 500 and status not in WAIT_FOR:
        return InvalidInput(f"{what}: the store refuses the request ({in_words(error)}): mend the URL or the store")
    return None


def _forbidden(status: str, error: BaseException, what: str) -> InvalidInput:
    return InvalidInput(f"{what}: the store forbids access{status} ({in_words(error)}): {_CREDENTIALS}")


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what caused it, nearest first."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        os_error = getattr(cause, "os_error", None)  # where aiohttp keeps what the system said
        if isinstance(os_error, BaseException):
            chain.append(os_error)
        cause = cause.__cause__
    return chain


def _status(error: BaseException) -> int | None:
    """The HTTP status of an error of aiohttp or botocore."""
    status = getattr(error, "status", None)
    if isinstance(status, int) and status >= 100:
        return status
    response = getattr(error, "response", None)
    found = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
    return found if isinstance(found, int) else None
