"""Where everything is kept: a folder or an S3 prefix, behind one interface.

Keys are relative paths with '/' between their parts: `datasets/`, `cache/`, `checkpoints/`, `packages/`, `registry/`
and one prefix per line. An object is whole or not there: it is written beside its place, then renamed.
"""

import errno
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from inspection.errors import StorageError

_log = logging.getLogger(__name__)

Data = bytes | bytearray | memoryview

_STAGING = ".staging"  # unfinished files, on the same file system as their places
_STAGING_LIFE_S = 24 * 3600  # what a killed process left is removed after this long


class ObjectExistsError(StorageError):
    """An object that may be created only once is there already."""


class Storage(Protocol):
    """Named objects, each written whole or not at all.

    Every method raises StorageError when the root cannot be reached, access is denied or space runs out.
    """

    root: str

    def exists(self, key: str) -> bool:
        """Whether the object is there."""

    def read(self, key: str) -> bytes:
        """The object's content.

        Raises:
            StorageError: it does not exist.
        """

    def write(self, key: str, data: Data) -> None:
        """Write the object, replacing what was there in one step."""

    def create(self, key: str, data: Data) -> None:
        """Write the object if it is not there; of several writers at once exactly one succeeds.

        Raises:
            ObjectExistsError: it is there already.
        """

    def upload(self, path: Path, key: str) -> None:
        """Write a local file's content as the object."""

    def local_copy(self, key: str) -> Path:
        """A local file with the object's content, to read or to memory-map; never change it.

        Raises:
            StorageError: it does not exist.
        """

    def list(self, prefix: str) -> list[str]:
        """Keys that begin with `prefix`, sorted."""

    def sizes(self, prefix: str) -> dict[str, int]:
        """Keys that begin with `prefix`, sorted, with the size of each object in bytes."""

    def free_bytes(self) -> int | None:
        """Space that is left; None where there is no end to it."""


def open_storage(root: str, kms_key: str = "") -> Storage:
    """Open a storage root.

    Args:
        root: a folder (made if missing) or `s3://bucket/prefix`.
        kms_key: key (id, alias or ARN) that encrypts what is written to S3; "" = the bucket's default.

    Raises:
        StorageError: the root is neither, or the folder cannot be made.
    """
    if root.startswith("s3://"):
        from inspection.storage_s3 import S3Storage  # boto3 takes a while to import

        return S3Storage(root, kms_key=kms_key)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", root):
        raise StorageError(f"storage {root!r}: want a folder or s3://bucket/prefix; see [line] storage")
    return LocalStorage(root)


def check_key(key: str) -> str:
    """Return the key if it stays below the root.

    Raises:
        StorageError: it is empty, absolute, has empty, '.' or '..' parts, a backslash or a NUL.
    """
    parts = key.split("/")
    if not all(parts) or {".", "..", _STAGING} & set(parts) or "\\" in key or "\0" in key:
        raise StorageError(
            f"storage key {key!r}: want a relative path such as 'datasets/x.jsonl' that stays below root"
        )
    return key


class LocalStorage:
    """Objects as files below a folder."""

    def __init__(self, root: str | Path) -> None:
        folder = Path(root).expanduser().absolute()
        self.root = str(folder)
        self._folder = folder
        self._staging = folder / _STAGING
        with _explained(f"storage {self.root}: cannot make the folder"):
            self._staging.mkdir(parents=True, exist_ok=True)
        self._sweep()

    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        return self._path(key).is_file()

    def read(self, key: str) -> bytes:
        """The object's content."""
        with _explained(f"{key}: cannot read it from storage {self.root}"):
            return self._path(key).read_bytes()

    def write(self, key: str, data: Data) -> None:
        """Write the object, replacing what was there in one step."""
        with self._staged(key, data) as staged:
            staged.replace(self._place(key))

    def create(self, key: str, data: Data) -> None:
        """Write the object if it is not there; of several writers at once exactly one succeeds."""
        with self._staged(key, data) as staged:
            try:
                os.link(staged, self._place(key))
            except FileExistsError:
                raise ObjectExistsError(f"{key}: is in storage {self.root} already and may not be replaced") from None
            _sync_folder(self._path(key).parent)  # what is created once is a record: it must outlive a power cut

    def upload(self, path: Path, key: str) -> None:
        """Write a local file's content as the object."""
        with self._staged(key, path) as staged:
            staged.replace(self._place(key))
            _sync_folder(self._path(key).parent)  # a record may name it next

    def local_copy(self, key: str) -> Path:
        """The object's own file; never change it."""
        path = self._path(key)
        if not path.is_file():
            raise StorageError(f"{key}: is not in storage {self.root}")
        return path

    def list(self, prefix: str) -> list[str]:
        """Keys that begin with `prefix`, sorted."""
        return list(self.sizes(prefix))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Keys that begin with `prefix`, sorted, with the size of each object in bytes."""
        folder = prefix.rpartition("/")[0]
        start = self._path(folder) if folder else self._folder
        found = {}
        with _explained(f"{prefix}: cannot list storage {self.root}"):
            for path, size in _walk(start):
                key = path[len(self.root) :].lstrip("/")
                if key.startswith(prefix):
                    found[key] = size
        return dict(sorted(found.items()))

    def free_bytes(self) -> int | None:
        """Space that is left on the folder's disk."""
        with _explained(f"storage {self.root}: cannot ask for its free space"):
            return shutil.disk_usage(self._folder).free

    def _path(self, key: str) -> Path:
        return self._folder / check_key(key)

    def _place(self, key: str) -> Path:
        """The object's path, its folder made."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def _staged(self, key: str, content: Data | Path) -> Iterator[Path]:
        """A finished file with the content, on disk; it is gone afterwards unless it was renamed."""
        check_key(key)
        with _explained(f"{key}: cannot read the file to store"):
            wanted = content.stat().st_size if isinstance(content, Path) else len(content)
        staged = self._staging / uuid.uuid4().hex
        try:
            with _explained(f"{key}: cannot write {wanted:,} bytes to storage {self.root}"):
                with staged.open("xb") as file:
                    if isinstance(content, Path):
                        with content.open("rb") as source:
                            shutil.copyfileobj(source, file, 1 << 20)
                    else:
                        file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                yield staged
        finally:
            staged.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what processes that were killed long ago left unfinished."""
        for entry in self._staging.iterdir():
            try:
                if time.time() - entry.stat().st_mtime > _STAGING_LIFE_S:
                    entry.unlink()
                    _log.info("event=unfinished_file_removed path=%s", entry)
            except FileNotFoundError:
                pass  # its writer finished, or another process swept it


def _walk(folder: Path) -> Iterator[tuple[str, int]]:
    """Path and size of every file below the folder, unfinished ones left out."""
    folders = [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir():
                        if entry.name != _STAGING:
                            folders.append(entry.path)
                    else:
                        yield entry.path, entry.stat().st_size
        except FileNotFoundError:
            pass  # no object with this prefix yet


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn an OSError into a StorageError that begins with `what` and says what to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError(f"{what}: it does not exist") from error
    except OSError as error:
        advice = {
            errno.ENOSPC: "; free some space or set [line] storage to a folder on a larger disk",
            errno.EDQUOT: "; free some of your quota or set [line] storage to another folder",
            errno.EACCES: "; this user may not, choose another folder with [line] storage",
            errno.EROFS: "; choose another folder with [line] storage",
            errno.EEXIST: "; a file is in its place: remove it, or choose another folder with [line] storage",
            errno.ENOTDIR: "; a file is in the place of a folder: choose another folder with [line] storage",
        }.get(error.errno or 0, "")
        raise StorageError(f"{what}: {error.strerror or error}{advice}") from error
