"""Ranges out of buckets by signed URLs: one signature serves all requests for a file, each a quarter of s3fs' work."""

import time
from typing import Any

from rrcm_dist.storage.filesystems import filesystem_of

VALID_SECONDS = 3600
RENEWED_SECONDS = 600
"""Before a signature ends, there is a new one."""
PLAIN_AFTER = 3
"""Signed requests in a row that fail where s3fs itself does not: then this store is not for signed URLs."""


class SignedRanges:
    """Reads ranges of the files of an s3 file system. May be handed to other processes."""

    def __init__(self) -> None:
        self._signed: dict[str, tuple[str, float]] = {}
        self._failed = 0

    async def read(self, filesystem: Any, path: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of a file; where a signed URL does not give them, s3fs does or says why not."""
        if self._failed < PLAIN_AFTER:
            try:
                url = await self._url(filesystem, path)
                http, _ = filesystem_of(url.partition("://")[0] + "://signed")
                data: bytes = await http._cat_file(url, start=start, end=end)
                if len(data) == end - start:
                    self._failed = 0
                    return data
            except Exception:
                self._signed.pop(path, None)
        data = await filesystem._cat_file(path, start=start, end=end)
        self._failed += 1
        return data

    async def _url(self, filesystem: Any, path: str) -> str:
        url, until = self._signed.get(path, ("", 0.0))
        if time.monotonic() > until:
            url = await filesystem._url(path, expires=VALID_SECONDS)
            self._signed[path] = url, time.monotonic() + VALID_SECONDS - RENEWED_SECONDS
        return url
