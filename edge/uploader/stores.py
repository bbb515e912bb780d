"""Where kept images are put, by key."""

import errno
import hashlib
import os
import re
from pathlib import Path
from typing import Protocol

from edge.errors import UploadError
from edge.spool.files import sync_folder
from edge.uploader.bandwidth import ThrottledBody, TokenBucket
from edge.uploader.settings import UploadSettings

_PIECE_BYTES = 64 * 1024
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


class Store(Protocol):
    """Takes files by key; putting the same again does no harm."""

    def put(self, key: str, data: bytes, sha256: str) -> None:
        """Store the data; when this returns the store has confirmed it.

        Args:
            key: relative path with '/' between its parts.
            data: the whole content.
            sha256: of the data, hex.

        Raises:
            UploadError: not confirmed; its `state` says why.
        """


def open_store(settings: UploadSettings) -> Store:
    """The store that the settings name.

    Raises:
        UploadError: they name none, or boto3 is missing for S3.
    """
    bucket = TokenBucket(settings.max_kb_per_s * 1000)
    if settings.to.startswith("s3://"):
        try:
            from edge.uploader.s3 import S3Store  # boto3 takes a second and 30 MB: only here, only for S3
        except ImportError as error:
            raise UploadError(
                "settings", f"uploads to {settings.to} need boto3 ({error}); install edge/requirements-upload.txt"
            ) from error
        return S3Store(settings, bucket)
    if not settings.to:
        raise UploadError("settings", "upload to: want a folder or s3://bucket/prefix, found nothing")
    return FolderStore(Path(settings.to), bucket)


def store_key(line: str, thing: str, verdict: str, date: str, name: str) -> str:
    """Key of a kept image or its sidecar in the inbox."""
    parts = (line, "raw-images-for-review", thing, verdict, date, name)
    return "/".join(re.sub(r"[^A-Za-z0-9:_.-]|^\.+", "_", part) for part in parts)


class FolderStore:
    """Files below a folder, whole or not there.

    Args:
        folder: must be there: it is never made, since a share that is not mounted now would fill the device's own disk.
        bucket: cap on bytes a second.
    """

    def __init__(self, folder: Path, bucket: TokenBucket) -> None:
        self._folder = folder
        self._bucket = bucket

    def put(self, key: str, data: bytes, sha256: str) -> None:
        """Write beside the place, sync, rename, sync the folder."""
        path = self._folder / key
        staged = path.with_name(f".{path.name}.part")
        if not self._folder.is_dir():
            raise UploadError(
                "missing", f"{self._folder}: there is no such folder; make it, or mount the share it is on"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with staged.open("wb") as file:
                    digest, body = hashlib.sha256(), ThrottledBody(data, self._bucket)
                    while piece := body.read(_PIECE_BYTES):
                        digest.update(piece)
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                if digest.hexdigest() != sha256:
                    raise UploadError("refused", f"{key}: want sha256 {sha256}, found {digest.hexdigest()}")
                staged.replace(path)
                sync_folder(path.parent)
            finally:
                staged.unlink(missing_ok=True)
        except OSError as error:
            raise UploadError(
                _state(error), f"{path}: cannot write: {error.strerror or error}; {_advice(error)}"
            ) from error


def _state(error: OSError) -> str:
    if error.errno in _FULL:
        return "full"
    return "denied" if error.errno in _DENIED else "offline"


def _advice(error: OSError) -> str:
    if error.errno in _FULL:
        return "make room there"
    return "let this user write there" if error.errno in _DENIED else "check that the folder's disk or share is there"
