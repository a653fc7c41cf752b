"""A dataset's own files out of a store: its index, and what can be told of its shards before any is read."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rrcm_dist.config.parts import DataConfig
from rrcm_dist.files import sha256
from rrcm_dist.storage.cache import PieceCache, user_cache
from rrcm_dist.storage.failures import NotInStore
from rrcm_dist.storage.remote import RemoteStore
from rrcm_dist.storage.store import DEFAULT_PATIENCE_SECONDS

TRIES = 3
MOST_ASKED = 32
_DEFAULT = DataConfig(train="")


@dataclass(frozen=True)
class StoreSettings:
    """How a dataset in a store is read: `data.cache`, `data.cache_gb` and `data.store_patience` of a recipe."""

    cache: str | None = None
    """Folder of the cache; None is the user's."""
    cache_gb: float = _DEFAULT.cache_gb
    """Bound of the cache in GB."""
    patience: float = DEFAULT_PATIENCE_SECONDS
    """Seconds."""

    @classmethod
    def of(cls, data: DataConfig) -> Self:
        """Those of a recipe."""
        return cls(data.cache, data.cache_gb, data.store_patience)

    @property
    def cache_folder(self) -> Path:
        """Where the cache is."""
        return user_cache() / "shards" if self.cache is None else Path(self.cache)

    def open_cache(self) -> PieceCache:
        """The cache of samples."""
        return PieceCache(self.cache_folder, int(self.cache_gb * 1e9))


def text_from_store(url: str, name: str, store: StoreSettings) -> str:
    """A small text file of the store; raises as `Store.read` does."""
    return RemoteStore(url, store.patience).read(name).decode("utf-8")


@contextmanager
def downloaded(url: str, name: str, checksum: str, store: StoreSettings) -> Iterator[Path]:
    """A file of the store on this machine: from the cache where its sha256 is `checksum`, or downloaded into it.

    Where the cache cannot take it, it is a temporary file. A wrong answer of the store is asked for again, a lasting
    one is what the caller then finds.
    """
    store.open_cache()  # where it cannot be written, this process says so, and those that it forks need not
    kept = store.cache_folder / f"{checksum}{Path(name).suffix}"
    if kept.is_file() and sha256(kept) == checksum:
        yield kept
        return
    remote = RemoteStore(url, store.patience)
    with tempfile.TemporaryDirectory(prefix="rrcm-index-") as aside:
        path = kept if _has_room(store.cache_folder, remote.size(name) or 0) else Path(aside) / name
        for _ in range(TRIES):
            remote.download(name, path)
            if sha256(path) == checksum:
                break
        yield path


def _has_room(folder: Path, needed_bytes: int) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > needed_bytes
    except OSError:
        return False


def sizes_in_store(url: str, names: Sequence[str], store: StoreSettings) -> dict[str, int | None]:
    """Bytes of files as far as a store tells them cheaply, None for one that is not there.

    That is, by http of up to `MOST_ASKED` of them, evenly spaced; elsewhere by a listing, of all.
    """
    remote = RemoteStore(url, store.patience)
    if not url.startswith(("http:", "https:")):
        listed = remote.listed_sizes()
        return {name: listed.get(name) for name in names}
    asked = names[:: -(-len(names) // MOST_ASKED)] if names else []
    sizes: dict[str, int | None] = {}
    for name, answer in zip(asked, remote.sizes(asked), strict=True):
        try:
            size = answer.result()
        except NotInStore:
            sizes[name] = None
        else:
            sizes |= {} if size is None else {name: size}
    return sizes
