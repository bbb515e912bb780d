"""Files of one folder on this machine: walked, looked up, read."""

import errno
import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inspection.dataset.images import MISSING
from inspection.errors import DataError

_log = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})
SHOWN = 20


@dataclass(frozen=True, slots=True)
class File:
    """A file that may be an image, a mask or a list."""

    uri: str  # below the folder or prefix, '/' between its parts
    size: int  # bytes
    version: str  # changes when the content does

    @property
    def is_image(self) -> bool:
        """Whether its name ends like an image's."""
        return self.uri[self.uri.rfind(".") :].lower() in SUFFIXES


def walk_folder(root: Path) -> list[File]:
    """Every file below the folder but hidden ones, sorted; links are followed, each folder once.

    Raises:
        DataError: the folder is missing or cannot be read.
    """
    return sorted(_walk(root), key=lambda file: file.uri)


def _walk(root: Path) -> Iterator[File]:
    hidden, seen = 0, set()
    folders = [""]
    while folders:
        folder = folders.pop()
        path = root / folder
        try:
            place = path.stat()
            if (place.st_dev, place.st_ino) in seen:
                continue  # a link back to a folder above
            seen.add((place.st_dev, place.st_ino))
            with os.scandir(path) as entries:
                for entry in entries:
                    uri = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.name.startswith("."):
                        hidden += 1
                    elif _is_folder(entry):
                        folders.append(uri)
                    else:
                        yield find_file(entry.path, uri) or File(uri, 0, MISSING)
        except OSError as error:
            raise DataError(
                f"{error.filename or path}: cannot read the images ({error.strerror}); "
                "give a folder with [data] source or --data"
            ) from error
    if hidden:
        _log.info("event=hidden_files_ignored count=%d", hidden)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def find_file(path: str, uri: str) -> File | None:
    """The file at a path, under the name that its source gives it; None if no file that can be read is there."""
    try:
        status = os.stat(path)  # noqa: PTH116 (a Path object for each of 200,000 files takes a second)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return File(uri, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")


def read_file(path: str) -> bytes:
    """The content of a regular file; nothing else is opened, since a named pipe or a device would never end.

    Raises:
        OSError: it is none, or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe without a writer would block here already
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "a pipe, device or the like where a regular file is wanted", path)
        return file.read()


def shown(uris: list[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(uris) - SHOWN} more" if len(uris) > SHOWN else ""
    return ", ".join(uris[:SHOWN]) + more
