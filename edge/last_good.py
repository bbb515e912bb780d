"""The inspector's own copies of packages: after a deployment the old artifacts are deleted, and files may change.

Folder layout: `<digest>/` is a whole package, `good` a link to the one that served last. Every step is atomic, so a
power loss leaves the old copy or the new one.
"""

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

from edge.errors import PackageError
from edge.package import CONTRACT_FILE

_GOOD = "good"
_TRYING = "trying"
_PARTIAL = ".partial"
_MAX_BYTES = 1 << 30  # of one package; a link to the wrong folder must not fill the disk


def package_digest(folder: Path) -> str:
    """Sha256 (hex) of a package's contract, which holds the digests of all its other files.

    Raises:
        OSError: there is no contract to read.
    """
    return hashlib.sha256((folder / CONTRACT_FILE).read_bytes()).hexdigest()


class LastGood:
    """Keeps the last package that served, in a folder of the inspector's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self) -> Path | None:
        """The package that served last; None when there is none."""
        link = self._folder / _GOOD
        return link.resolve() if link.is_symlink() and link.is_dir() else None

    def get(self, digest: str) -> Path | None:
        """The copy of that package; None when there is none."""
        folder = self._folder / digest
        return folder if folder.is_dir() else None

    def copy(self, source: Path, digest: str) -> Path:
        """Copy a package and sync it to the disk.

        Returns:
            the copy's folder. It is not yet the last good one.

        Raises:
            OSError: the disk refuses.
            PackageError: the source is no package of a sensible size, or changed meanwhile.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        target, partial = self._folder / digest, self._folder / (digest + _PARTIAL)
        if partial.exists():
            shutil.rmtree(partial)
        size = sum(path.lstat().st_size for path in source.rglob("*"))
        if size > _MAX_BYTES:
            raise PackageError(f"{source}: want a package of at most {_MAX_BYTES} bytes, found {size}")
        try:
            shutil.copytree(source, partial, symlinks=True)
            if package_digest(partial) != digest:
                raise PackageError(f"{source}: the contract changed while it was copied; it is tried again")
            _sync_tree(partial)
            if target.exists():  # damaged; until here it might still be needed
                shutil.rmtree(target)
            partial.rename(target)
        except shutil.Error as error:  # a list of files with their errors
            raise OSError(f"{source}: cannot copy the package: {error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        _sync(self._folder)
        return target

    def bless(self, digest: str) -> None:
        """Make that copy the last good one, and delete the others.

        Raises:
            OSError: the disk refuses.
        """
        link, fresh = self._folder / _GOOD, self._folder / (_GOOD + _PARTIAL)
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(digest)
        fresh.replace(link)
        _sync(self._folder)
        for path in self._folder.iterdir():
            if path.is_dir() and not path.is_symlink() and path.name != digest:
                shutil.rmtree(path, ignore_errors=True)

    def discard(self, digest: str) -> None:
        """Delete the copy of a package that turned out bad; the last good one stays, whatever is said of it now.

        It served here, so what is wrong may be this device's: another runtime, too little memory.
        """
        folder = self._folder / digest
        good = self.find()
        if good is None or good.name != digest:
            shutil.rmtree(folder, ignore_errors=True)

    def begin_trial(self, digest: str) -> None:
        """Note which package is being opened: if that ends this process, the next one finds the note."""
        with contextlib.suppress(OSError):  # a read-only disk: then there is no note
            (self._folder / _TRYING).write_text(digest, encoding="ascii")

    def end_trial(self) -> None:
        """The package was opened or refused, and this process lives."""
        with contextlib.suppress(OSError):
            (self._folder / _TRYING).unlink(missing_ok=True)

    def died_trying(self, digest: str) -> bool:
        """Whether an earlier process ended while it opened that package."""
        try:
            return (self._folder / _TRYING).read_text(encoding="ascii") == digest
        except (OSError, UnicodeDecodeError):
            return False


def _sync_tree(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():
            _sync(path)


def _sync(path: Path) -> None:
    """Force a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
