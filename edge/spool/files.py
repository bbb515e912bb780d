"""Files that are whole and on disk when these functions return."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make the folder's entries (files made, renamed, removed) durable.

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, durably.

    Raises:
        OSError: the disk refuses.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        sync_folder(path.parent)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and sync its content; the folder still has to be synced. A half-written file is removed.

    Raises:
        OSError: the disk refuses.
    """
    try:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file: after a power loss it holds the old content or the new, whole.

    Raises:
        OSError: the disk refuses.
    """
    new = path.with_name(path.name + ".new")
    write_synced(new, data)
    new.replace(path)
    sync_folder(path.parent)


def identity(path: Path) -> tuple[int, int] | None:
    """Tells a file from another that took its place; None when there is none.

    Raises:
        OSError: the disk refuses.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino
