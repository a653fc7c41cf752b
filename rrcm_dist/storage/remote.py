"""A store behind a URL, by fsspec: many requests at once, each with a time limit, retried until patience ends."""

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from rrcm_dist.errors import RunFailure
from rrcm_dist.files import whole_file
from rrcm_dist.progress import progress_bar
from rrcm_dist.storage.failures import NotInStore, in_words, lasting
from rrcm_dist.storage.filesystems import CONNECTIONS, filesystem_of
from rrcm_dist.storage.signing import SignedRanges

ANSWER_SECONDS = 30.0
"""Within which a store must answer, besides the time that the bytes take."""
SLOWEST_BYTES_PER_SECOND = 1e6
"""A store that is slower than this counts as stalled."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 30.0
SECONDS_BETWEEN_WARNINGS = 30.0
WRONG_ANSWERS = 3
"""After so many of them to one request, waiting will not mend it."""
CHUNK_BYTES, CHUNKS_AT_ONCE = 16 << 20, 4
"""What is downloaded by one request, and how many of those at once."""

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class WrongAnswerError(Exception):
    """The store has answered with something else than was asked for."""


class RemoteStore:
    """See `Store`. May be handed to other processes: each opens connections of its own."""

    def __init__(self, url: str, patience: float) -> None:
        self.place, self._patience = url.rstrip("/"), patience
        self._answered = False
        self._turns_of: tuple[int, Any] = (0, None)
        self._signed = SignedRanges() if self.place.startswith(("s3:", "s3a:")) else None
        self._warned_at = -SECONDS_BETWEEN_WARNINGS
        filesystem_of(self.place)

    def request(self, name: str, start: int, length: int) -> "Future[bytes]":
        """Ask for `length` bytes of a file from byte `start` on; any number may be asked for at once."""

        async def ask(filesystem: Any, path: str) -> bytes:
            data: bytes = await self._range(filesystem, path, start, start + length)
            if len(data) != length:
                raise WrongAnswerError(
                    f"{len(data)} bytes where {length} from byte {start} on were asked for; a store must answer "
                    "Range requests, and its file be as long as its index says"
                )
            return data

        return self._begin(name, ask, length)

    def sizes(self, names: Sequence[str]) -> "list[Future[int | None]]":
        """As `size`, asked for at once."""

        async def ask(filesystem: Any, path: str) -> int | None:
            return (await filesystem._info(path))["size"]

        return [self._begin(name, ask) for name in names]

    def size(self, name: str) -> int | None:
        """See `Store.size`."""
        return self.sizes([name])[0].result()

    def read(self, name: str) -> bytes:
        """See `Store.read`."""

        async def ask(filesystem: Any, path: str) -> bytes:
            return await filesystem._cat_file(path)

        return self._begin(name, ask).result()

    def names(self, below: str = "") -> list[str]:
        """See `Store.names`."""
        return sorted(self.listed_sizes(below))

    def listed_sizes(self, below: str = "") -> dict[str, int | None]:
        """As `names`, each with its bytes as far as the listing says them."""

        async def ask(filesystem: Any, path: str) -> dict[str, int | None]:
            found = await filesystem._find(path, detail=True)
            root = filesystem_of(self.place)[1]
            return {
                each[len(root) :].lstrip("/"): about.get("size")
                for each, about in found.items()
                if each.rstrip("/") != path
            }

        try:
            return self._begin(below, ask).result()
        except NotInStore:
            return {}

    def download(self, name: str, to: Path, show: bool = False) -> None:
        """See `Store.download`."""
        size = self.size(name)
        with whole_file(to) as aside, open(aside, "wb") as file:
            if size is None:
                file.write(self.read(name))
                return
            starts, waiting = iter(range(0, size, CHUNK_BYTES)), list[Future[bytes]]()
            with progress_bar(f"downloading {name}", size // 10**6, unit="MB", show=show) as bar:
                while True:
                    while len(waiting) < CHUNKS_AT_ONCE and (start := next(starts, None)) is not None:
                        waiting.append(self.request(name, start, min(CHUNK_BYTES, size - start)))
                    if not waiting:
                        return
                    data = waiting.pop(0).result()
                    file.write(data)
                    bar.advance(len(data) // 10**6)

    def upload(self, file: Path, name: str) -> None:
        """See `Store.upload`."""
        size = file.stat().st_size
        how = {"method": "put"} if self.place.startswith(("http:", "https:")) else {}

        async def ask(filesystem: Any, path: str) -> None:
            await filesystem._put_file(str(file), path, **how)
            there = (await filesystem._info(path))["size"]
            if there not in (size, None):
                raise WrongAnswerError(f"{there} bytes arrived where {size} were sent")

        self._begin(name, ask, size).result()

    def delete(self, name: str) -> None:
        """See `Store.delete`."""

        async def ask(filesystem: Any, path: str) -> None:
            await filesystem._rm(path, recursive=True)

        try:
            self._begin(name, ask).result()
        except NotInStore:
            return

    async def _range(self, filesystem: Any, path: str, start: int, end: int) -> bytes:
        if self._signed is not None:
            return await self._signed.read(filesystem, path, start, end)
        return await filesystem._cat_file(path, start=start, end=end)

    def _begin(
        self, name: str, ask: Callable[[Any, str], Awaitable[Result]], number_of_bytes: int = 0
    ) -> "Future[Result]":
        filesystem, root = filesystem_of(self.place)
        path = f"{root}/{name}" if name else root
        work = self._persist(name, lambda: ask(filesystem, path), number_of_bytes / SLOWEST_BYTES_PER_SECOND)
        return asyncio.run_coroutine_threadsafe(work, filesystem.loop)

    async def _persist(self, name: str, ask: Callable[[], Awaitable[Result]], transfer_seconds: float) -> Result:
        """What `ask` answers in time; asked again, ever less often, until patience ends.

        Bytes that come or go as slowly as is allowed take no patience.
        """
        what = f"{self.place}/{name}"
        begun: float | None = None
        pause, wrong = FIRST_PAUSE_SECONDS, 0
        while True:
            try:
                async with self._turns():
                    begun = begun or time.monotonic()
                    left = max(begun + self._patience - time.monotonic(), FIRST_PAUSE_SECONDS)
                    answer = await asyncio.wait_for(ask(), min(ANSWER_SECONDS, left) + transfer_seconds)
                self._answered = True
                return answer
            except Exception as error:
                if told := lasting(error, what, self.place, self._answered):
                    raise told from error
                wrong += isinstance(error, WrongAnswerError)
                if wrong == WRONG_ANSWERS:
                    raise RunFailure(f"{what}: the store answers with {error}") from error
                waited = time.monotonic() - (begun or time.monotonic())
                if waited >= self._patience:
                    raise RunFailure(
                        f"the store {self.place} has failed for {waited:.0f} s (data.store_patience): {what}: "
                        f"{in_words(error)}: see whether it can be reached from {os.uname().nodename}, then run again"
                    ) from error
                self.warn(name, f"{in_words(error)} ({self._patience - waited:.0f} s of patience left)")
            await asyncio.sleep(min(pause * random.uniform(0.5, 1.0), self._patience - waited))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def warn(self, name: str, problem: str) -> None:
        """Tell the log that the store stalls or fails, unless it was told a short while ago."""
        now = time.monotonic()
        if now - self._warned_at >= SECONDS_BETWEEN_WARNINGS:
            self._warned_at = now
            logger.warning("the store %s stalls or fails: %s: %s; it is asked again", self.place, name, problem)

    def _turns(self) -> asyncio.Semaphore:
        """Of this process, taken in its loop alone; a request waits for its turn before its time begins."""
        if self._turns_of[0] != os.getpid():
            self._turns_of = os.getpid(), asyncio.Semaphore(CONNECTIONS)
        return self._turns_of[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_turns_of": (0, None)}
