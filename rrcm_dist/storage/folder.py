"""A local folder (or one of NFS) as a store."""

import shutil
from pathlib import Path

from rrcm_dist.errors import InvalidInput
from rrcm_dist.files import PARTIAL, disk_failure, whole_file
from rrcm_dist.storage.failures import NotInStore


class FolderStore:
    """See `Store`; the file system itself waits for what can be waited for."""

    def __init__(self, folder: Path) -> None:
        self.place, self._folder = str(folder), folder

    def names(self, below: str = "") -> list[str]:
        """See `Store.names`; unfinished files are left out."""
        files = (self._folder / below).rglob("*")
        found = [path for path in files if path.is_file() and not path.name.endswith(PARTIAL)]
        return sorted(path.relative_to(self._folder).as_posix() for path in found)

    def size(self, name: str) -> int | None:
        """See `Store.size`."""
        return self._there(name).stat().st_size

    def read(self, name: str) -> bytes:
        """See `Store.read`."""
        path = self._there(name)
        try:
            return path.read_bytes()
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error

    def download(self, name: str, to: Path, show: bool = False) -> None:
        """See `Store.download`."""
        with whole_file(to) as aside:
            shutil.copyfile(self._there(name), aside)

    def upload(self, file: Path, name: str) -> None:
        """See `Store.upload`."""
        with whole_file(self._folder / name) as aside:
            shutil.copyfile(file, aside)

    def delete(self, name: str) -> None:
        """See `Store.delete`."""
        path = self._folder / name
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_failure(error, path) from error

    def _there(self, name: str) -> Path:
        path = self._folder / name
        if not path.is_file():
            raise NotInStore(f"{path} does not exist")
        return path
