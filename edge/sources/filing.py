"""Puts finished files away: never over another file."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

_TRIES = 1000
_MAX_NAME_BYTES = 255


def move(source: Path, folder: Path, tag: str) -> Path:
    """Move a file into a folder, which is made if need be.

    The name stays if it is free. If not, `tag` goes before the suffix, then a number after it. The new name is
    reserved with an empty file first, so that two movers never choose the same.

    Args:
        source: the file; a symbolic link is moved as a link.
        folder: where to; may be on another file system.
        tag: unique in the folder as a rule, such as a result's number.

    Returns:
        where it is now.

    Raises:
        OSError: no space, no permission, the file is gone; it is then where it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = _reserve(source.name, folder, tag)
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            target.unlink(missing_ok=True)
            raise
        _copy_across(source, target)
    return target


def _reserve(name: str, folder: Path, tag: str) -> Path:
    """An empty file that nobody else has."""
    for number in range(_TRIES):
        target = folder / _numbered(name, tag, number)
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        except FileExistsError:
            continue
        return target
    raise FileExistsError(errno.EEXIST, f"no free name for {name!r} after {_TRIES} tries", str(folder))


def _numbered(name: str, tag: str, number: int) -> str:
    if number == 0:
        return name
    mark = f"-{tag}" if number == 1 else f"-{tag}-{number}"
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a name, not a path
    while len(os.fsencode(stem + mark + suffix)) > _MAX_NAME_BYTES and stem:
        stem = stem[:-1]
    return stem + mark + suffix


def _copy_across(source: Path, target: Path) -> None:
    """Copy to another file system, sync, then remove the original."""
    partial = target.with_name(f".{target.name[:200]}.part")
    try:
        shutil.copy2(source, partial, follow_symlinks=False)
        if not partial.is_symlink():
            with partial.open("rb") as copy:
                os.fsync(copy.fileno())
        partial.replace(target)
    except OSError:
        partial.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
        raise
    source.unlink()
