"""Zips whose bytes depend on their content alone: fixed order, times, permissions and level of compression.

A digest is of the content, not of the zip: a compressor's output may change with its version, and the same content must
not become another version of a component for that. Files are streamed: wheels are larger than the memory of a small
machine.
"""

import errno
import hashlib
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from inspection.errors import RolloutError

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
UNIX = 3  # the system that an entry's permissions are meant for
PERMISSIONS = 0o644  # scripts are given to sh
LEVEL = 9  # a zip is made once and downloaded by every device
PACKED = (".whl", ".png", ".jpg")  # would not shrink
_PIECE = 1 << 20


def write_zip(path: Path, entries: Mapping[str, Path | bytes]) -> str:
    """Write a zip, whole or not at all.

    Args:
        path: replaced when it exists.
        entries: name in the zip to a file, or to the content itself.

    Returns:
        Sha256 (hex) of names and content.

    Raises:
        RolloutError: a file cannot be read, or the disk is full.
    """
    partial = path.with_name(f".{path.name}.partial")
    whole = hashlib.sha256()
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as target:
                for name in sorted(entries):
                    whole.update(f"{_write_entry(target, name, entries[name])}  {name}\n".encode())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return whole.hexdigest()


def _write_entry(target: zipfile.ZipFile, name: str, content: Path | bytes) -> str:
    """Add a file; returns the sha256 of what was added."""
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.create_system = UNIX
    entry.external_attr = (stat.S_IFREG | PERMISSIONS) << 16
    entry.compress_type = zipfile.ZIP_STORED if name.endswith(PACKED) else zipfile.ZIP_DEFLATED
    if isinstance(content, bytes):
        target.writestr(entry, content, compresslevel=LEVEL)
        return hashlib.sha256(content).hexdigest()
    entry.file_size = content.stat().st_size
    digest = hashlib.sha256()
    entry._compresslevel = LEVEL  # type: ignore[attr-defined]  # `open` takes it from here only, up to Python 3.12
    with content.open("rb") as source, target.open(entry, "w") as sink:
        while piece := source.read(_PIECE):
            digest.update(piece)
            sink.write(piece)
    return digest.hexdigest()


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
