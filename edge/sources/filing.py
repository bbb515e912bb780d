"""Puts finished files away: never over another file, and never in two steps of which a kill could leave one."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

_TRIES = 1000
_MAX_NAME_BYTES = 255
# No hard links: file systems such as FAT and some shares have none, and a file of another user may not get one.
_NO_LINKS = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK)


def move(source: Path, folder: Path, tag: str) -> Path:
    """Move a file into a folder, which is made if need be.

    The name stays if it is free. If not, `tag` goes before the suffix, then a number after it. The file gets the new
    name as a second one (a hard link, which never overwrites) and then loses the first: killed between the two, it has
    both, and moving it again completes the move.

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
    try:
        return _place(source, folder, source.name, tag)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    return _copy_across(source, folder, tag)


def _place(source: Path, folder: Path, name: str, tag: str) -> Path:
    """Move within a file system."""
    for number in range(_TRIES):
        target = folder / _numbered(name, tag, number)
        try:
            os.link(source, target, follow_symlinks=False)
        except FileExistsError:
            if not _is_same(source, target):
                continue
        except OSError as error:
            if error.errno in _NO_LINKS:
                return _place_without_links(source, folder, name, tag)
            raise
        try:
            source.unlink()
        except OSError:
            target.unlink(missing_ok=True)
            raise
        return target
    raise _no_name(name, folder)


def _place_without_links(source: Path, folder: Path, name: str, tag: str) -> Path:
    """Reserve the name with an empty file first, so that two movers never choose the same; a kill may leave that."""
    for number in range(_TRIES):
        target = folder / _numbered(name, tag, number)
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        except FileExistsError:
            continue
        try:
            source.replace(target)
        except OSError:
            target.unlink(missing_ok=True)
            raise
        return target
    raise _no_name(name, folder)


def _is_same(one: Path, other: Path) -> bool:
    """Whether two names are of one file."""
    a, b = one.lstat(), other.lstat()
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)


def _no_name(name: str, folder: Path) -> OSError:
    return FileExistsError(errno.EEXIST, f"no free name for {name!r} after {_TRIES} tries", str(folder))


def _numbered(name: str, tag: str, number: int) -> str:
    if number == 0:
        return name
    mark = f"-{tag}" if number == 1 else f"-{tag}-{number}"
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a name, not a path
    while len(os.fsencode(stem + mark + suffix)) > _MAX_NAME_BYTES and stem:
        stem = stem[:-1]
    return stem + mark + suffix


def _copy_across(source: Path, folder: Path, tag: str) -> Path:
    """Copy to another file system, sync, then remove the original."""
    partial = folder / f".{source.name[:200]}.part"
    try:
        shutil.copy2(source, partial, follow_symlinks=False)
        if not partial.is_symlink():
            with partial.open("rb") as copy:
                os.fsync(copy.fileno())
        target = _place(partial, folder, source.name, tag)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    try:
        source.unlink()
    except OSError:
        target.unlink(missing_ok=True)
        raise
    return target
