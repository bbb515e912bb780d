"""Zips whose bytes depend on their content alone: fixed order, times and permissions, nothing compressed.

A compressor's output changes with its version, and wheels, models and pictures would shrink little; so the same input
makes the same digest on every machine. Files are streamed: wheels are larger than the memory of a small machine.
"""

import errno
import hashlib
import shutil
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from inspection.errors import RolloutError

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
UNIX = 3  # the system that an entry's permissions are meant for
PERMISSIONS = 0o644  # scripts are given to sh


def write_zip(path: Path, entries: Mapping[str, Path | bytes]) -> str:
    """Write a zip, whole or not at all.

    Args:
        path: replaced when it exists.
        entries: name in the zip to a file, or to the content itself.

    Returns:
        Its sha256, hex.

    Raises:
        RolloutError: a file cannot be read, or the disk is full.
    """
    partial = path.with_name(f".{path.name}.partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as target:
                for name in sorted(entries):
                    _write_entry(target, name, entries[name])
            digest = sha256_of(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return digest


def _write_entry(target: zipfile.ZipFile, name: str, content: Path | bytes) -> None:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.create_system = UNIX
    entry.external_attr = (stat.S_IFREG | PERMISSIONS) << 16
    if isinstance(content, bytes):
        target.writestr(entry, content)
        return
    entry.file_size = content.stat().st_size
    with content.open("rb") as source, target.open(entry, "w") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)


def sha256_of(path: Path) -> str:
    """Sha256 (hex) of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Say which path could not be written or read, and what to do."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RolloutError(f"{where}: no space is left for the components; make room and run again") from error
        raise RolloutError(f"{where}: the components cannot be built there ({error.strerror or error})") from error
