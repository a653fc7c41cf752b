"""One face for a folder and for a URL: names, sizes, reading, downloading, uploading, deleting of files.

Names are relative to the store's place and use `/`. Everything is tried again for `patience` seconds where waiting may
mend it, and told at once where it cannot; see `failures`.
"""

from pathlib import Path
from typing import Protocol

DEFAULT_PATIENCE_SECONDS = 600.0


class Store(Protocol):
    """Files below one place.

    Every method raises `NotInStore` for a file that is not there, `InvalidInput` for what cannot be (no access, no such
    bucket, no credentials) and `RunFailure` where the store has failed for longer than its patience.
    """

    place: str
    """The folder or URL, as it was given."""

    def names(self, below: str = "") -> list[str]:
        """Every file below the folder `below`, at any depth, sorted; empty where there is none or no such folder."""

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where the store does not say."""

    def read(self, name: str) -> bytes:
        """A whole small file."""

    def download(self, name: str, to: Path, show: bool = False) -> None:
        """Copy a file of the store to the local path `to`, where it appears whole; `show` shows a progress bar."""

    def upload(self, file: Path, name: str) -> None:
        """Copy a local file into the store, over what has that name; readers of the store see it whole."""

    def delete(self, name: str) -> None:
        """Remove a file, or a folder with all that is below it; nothing happens where neither is there."""


def is_url(place: str | Path) -> bool:
    """Whether a place is a URL (https://…, s3://bucket/…) and not a folder."""
    return "://" in str(place)


def open_store(place: str | Path, patience: float = DEFAULT_PATIENCE_SECONDS) -> Store:
    """The store at a folder or URL; `patience` is in seconds. Nothing is asked of it yet.

    Raises `InvalidInput` for a URL of unknown kind, or whose kind needs a package that is not installed.
    """
    if is_url(place):
        from rrcm_dist.storage.remote import RemoteStore

        return RemoteStore(str(place), patience)
    from rrcm_dist.storage.folder import FolderStore

    return FolderStore(Path(place))
