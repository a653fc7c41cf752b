"""Source: a folder per class, with image files in it or in folders below it (as ImageNet is unpacked)."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from rrcm_dist.errors import InvalidInput
from rrcm_dist.progress import progress_bar
from shards.source import Entry, Source, with_unique_keys

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""What an image file's name ends with, in any case; what it really is is found out when it is read."""
SPLITS = {"train", "val", "valid", "validation", "test"}
"""Names of folders of classes, not of classes."""


def image_folder(folder: Path) -> Source:
    """List SOURCE/CLASS/…/IMAGE. Classes are sorted by name; images of a class in torchvision's ImageFolder order.

    Raises `InvalidInput` where the folder is missing or empty or a class has no image file.
    """
    class_folders = _class_folders(folder)
    entries: list[Entry] = []
    digest = hashlib.sha256()
    passed_over: list[str] = []
    empty: list[str] = []
    with progress_bar(f"listing {folder.name}", len(class_folders), unit="classes") as bar:
        for label, class_folder in enumerate(class_folders):
            before = len(entries)
            for path in _files(class_folder):
                origin = os.path.relpath(path, folder)
                name, extension = os.path.splitext(origin)
                if extension.lower() not in EXTENSIONS:
                    passed_over.append(origin)
                    continue
                size_bytes, modified_ns = _size_and_time(path)
                digest.update(f"{origin}\0{size_bytes}\0{modified_ns}\n".encode("utf-8", "surrogateescape"))
                entries.append(Entry(name, label, path, origin, size_bytes))
            if len(entries) == before:
                empty.append(class_folder.name)
            bar.advance()
    if empty:
        shown = ", ".join(empty[:5]) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        raise InvalidInput(
            f"{folder}: no image in the class {shown}: add images to each class, or remove the empty folders "
            f"(an image's name ends with one of {' '.join(EXTENSIONS)})"
        )
    notes = (
        (f"{len(passed_over)} files are not named like images, passed over: {passed_over[0]} …",) if passed_over else ()
    )
    classes = tuple(class_folder.name for class_folder in class_folders)
    return Source(classes, with_unique_keys(entries), digest.hexdigest(), notes)


def _class_folders(folder: Path) -> list[Path]:
    if not folder.exists():
        raise InvalidInput(f"{folder} does not exist: name a folder that holds a folder per class")
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is not a folder: name a folder that holds a folder per class")
    try:
        found = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise _unreadable(error) from error
    if not found:
        loose = sum(path.suffix.lower() in EXTENSIONS for path in folder.iterdir())
        holds = f"{loose} images but no folder" if loose else "nothing of use"
        raise InvalidInput(f"{folder} holds {holds}: it must hold a folder per class, with that class's images in it")
    if {path.name for path in found} <= SPLITS:
        names = " or ".join(str(path) for path in found)
        raise InvalidInput(f"{folder} holds splits, not classes: name one of them, {names}")
    return found


def _unreadable(error: OSError) -> InvalidInput:
    return InvalidInput(f"{error.filename} cannot be read: {error.strerror}: mend its permissions or leave it out")


def _raise(error: OSError) -> None:
    raise _unreadable(error) from error


def _files(class_folder: Path) -> Iterator[str]:
    """Every visible file below, links followed, in torchvision's order: folders by path, then files by name."""
    walked = []
    seen: set[tuple[int, int]] = set()
    for root, folders, files in os.walk(class_folder, onerror=_raise, followlinks=True):
        here = os.stat(root)
        if (here.st_dev, here.st_ino) in seen:  # a link back up
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        walked.append((root, files))
    for root, files in sorted(walked):
        for name in sorted(files):
            if not name.startswith("."):
                yield os.path.join(root, name)


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:  # a dangling link: listed, and found unreadable when its turn comes
        return 0, 0
    return status.st_size, status.st_mtime_ns
