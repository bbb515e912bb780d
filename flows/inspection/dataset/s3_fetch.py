"""Many objects of S3 at once, each verified before it gets its name.

A few are fetched by threads. For more, chunks of objects are fetched into a staging folder by `metaflow.S3`, which
retries what S3 throttles. A file is moved to its place only when its size is the listed one and its MD5 is the content
tag; where the tag is no MD5 (parts of an odd size, KMS), the object must still have the listed tag afterwards. So a
killed run keeps every finished chunk, a half file never has a name, and an object that changes between listing and
fetching is found.
"""

import hashlib
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlparse

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from inspection.dataset.s3_errors import BROKEN_OFF, code_of, explained, is_missing
from inspection.errors import DataError, StorageError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_log = logging.getLogger(__name__)

Item = TypeVar("Item")

DIRECT_OBJECTS = 100  # so many are fetched by threads, sooner than Metaflow's client starts
CHUNK_OBJECTS = 1000  # fetched by one start of Metaflow's client, which takes about a second
CHUNK_BYTES = 256 << 20
_THREADS = 16  # that fetch one object each
_ATTEMPTS = 3  # of one object that arrives damaged
_AT_ONCE = 2  # chunks: one starts while the other transfers
_WORKERS_PER_CORE = 8  # processes of one chunk that wait for S3
_STAGING = ".staging"
_STAGING_LIFE_S = 24 * 3600  # what a killed run left is removed after this long
_PART_SIZES_MB = (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 256, 512)  # that upload programs use


@dataclass(frozen=True, slots=True)
class Remote:
    """An object as it was listed, and where its content goes."""

    address: str
    size: int  # bytes
    tag: str  # S3's ETag without quotation marks
    place: Path


def fetch_objects(objects: Sequence[Remote], store: Path, client: "S3Client", progress: bool) -> None:
    """Bring objects into the store.

    Args:
        objects: each is written to its place, below `store`.
        store: folder; unfinished files lie in `.staging` below it.
        client: for what Metaflow's client cannot do.
        progress: show a bar on stderr if that is a terminal.

    Raises:
        DataError: an object changed since it was listed.
        StorageError: S3 refuses, the disk is full, an object arrives damaged again and again.
    """
    staging = store / _STAGING
    total = sum(remote.size for remote in objects)
    _make_staging(staging, total)
    started = time.monotonic()
    ordered = sorted(objects, key=lambda remote: remote.address)
    direct = [one for one in ordered if len(ordered) <= DIRECT_OBJECTS or not _is_plain(one.address)]
    plain = [one for one in ordered if len(ordered) > DIRECT_OBJECTS and _is_plain(one.address)]
    # read by Metaflow's worker processes; its default of 64 costs a small machine more than it gains
    os.environ.setdefault("METAFLOW_S3_WORKER_COUNT", str(min(64, _WORKERS_PER_CORE * (os.cpu_count() or 1))))
    with _bar(total, progress) as advance:

        def take(chunk: Sequence[Remote]) -> None:
            _fetch_chunk(chunk, staging, client)
            advance(sum(remote.size for remote in chunk))

        def take_one(remote: Remote) -> None:
            _store(fetch_one(remote, client), remote, staging)
            advance(remote.size)

        _run(_THREADS, take_one, direct)
        _run(_AT_ONCE, take, list(_chunks(plain)))
    seconds = time.monotonic() - started
    _log.info(
        "event=images_fetched count=%d mb=%.1f seconds=%.1f mb_per_s=%.1f",
        len(objects),
        total / 1e6,
        seconds,
        total / 1e6 / max(seconds, 1e-3),
    )


def _run(threads: int, function: Callable[[Item], None], items: Sequence[Item]) -> None:
    """Do it for every item; the first error stops what has not begun."""
    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(function, item) for item in items]
        try:
            for future in running:
                future.result()
        finally:
            for future in running:
                future.cancel()


def fetch_one(remote: Remote, client: "S3Client") -> bytes:
    """The content of one object, if it is still the one that was listed.

    Raises:
        DataError: it changed or is gone.
        StorageError: S3 refuses, or it arrives damaged again and again.
    """
    bucket, _, key = remote.address.removeprefix("s3://").partition("/")
    arrived = ""
    for attempt in range(_ATTEMPTS):
        time.sleep(attempt)  # s
        with explained(remote.address, "fetching it"):
            try:
                # AWS answers 412 when the object changed; what does not know this condition is checked below
                data = client.get_object(Bucket=bucket, Key=key, IfMatch=f'"{remote.tag}"')["Body"].read()
            except client.exceptions.ClientError as error:
                if is_missing(error) or code_of(error) in ("412", "PreconditionFailed"):
                    raise _changed(remote) from error
                raise
            except BROKEN_OFF as error:
                arrived = str(error)
                continue
        if len(data) == remote.size and _matches(data, remote):
            return data
        if _is_unchanged(remote, client) and len(data) == remote.size:
            return data
        arrived = f"{len(data):,} bytes with another content"
    raise StorageError(
        f"{remote.address}: arrived damaged {_ATTEMPTS} times: want {remote.size:,} bytes with content tag "
        f"{remote.tag}, found {arrived}; check the network and run again: what was fetched so far stays"
    )


def _fetch_chunk(chunk: Sequence[Remote], staging: Path, client: "S3Client") -> None:
    from metaflow import S3
    from metaflow.plugins.datatools.s3 import MetaflowS3AccessDenied, MetaflowS3Exception

    where = f"{chunk[0].address} and {len(chunk) - 1} more" if len(chunk) > 1 else chunk[0].address
    with S3(tmproot=str(staging)) as s3:
        try:
            got = s3.get_many([remote.address for remote in chunk], return_missing=True, return_info=False)
        except MetaflowS3AccessDenied as error:
            raise StorageError(
                f"{where}: fetching: access denied ({str(error).strip()}); these credentials need s3:GetObject there"
            ) from error
        except MetaflowS3Exception as error:
            raise StorageError(
                f"{where}: fetching: {str(error).strip()}; run again: what was fetched so far stays"
            ) from error
        paths = [Path(item.path) if item.path else None for item in got]
        gone = [remote for remote, path in zip(chunk, paths, strict=True) if path is None]
        if gone:
            raise _changed(gone[0])
        doubtful = []
        for remote, path in zip(chunk, paths, strict=True):
            assert path is not None
            data = path.read_bytes()
            if len(data) == remote.size and _matches(data, remote):
                remote.place.parent.mkdir(parents=True, exist_ok=True)
                path.replace(remote.place)
            else:
                doubtful.append(remote)
    _run(_THREADS, lambda one: _store(fetch_one(one, client), one, staging), doubtful)


def _matches(data: bytes, remote: Remote) -> bool:
    """Whether the content tag is the MD5 of the content, or of the MD5s of parts of a usual size."""
    digest, _, parts = remote.tag.partition("-")
    if not parts:
        return hashlib.md5(data, usedforsecurity=False).hexdigest() == digest
    for part_size in (size << 20 for size in _PART_SIZES_MB):
        if -(-len(data) // part_size) == int(parts):
            pieces = (data[start : start + part_size] for start in range(0, len(data), part_size))
            whole = b"".join(hashlib.md5(piece, usedforsecurity=False).digest() for piece in pieces)
            if hashlib.md5(whole, usedforsecurity=False).hexdigest() == digest:
                return True
    return False


def _is_unchanged(remote: Remote, client: "S3Client") -> bool:
    """Whether content that is not proven by its tag may be trusted; boto3 has checked the checksum that S3 keeps.

    Raises:
        DataError: the object is another one now.
    """
    bucket, _, key = remote.address.removeprefix("s3://").partition("/")
    with explained(remote.address, "looking whether it changed"):
        try:
            head = client.head_object(Bucket=bucket, Key=key)
        except client.exceptions.ClientError as error:
            if is_missing(error):
                raise _changed(remote) from error
            raise
    if head["ETag"].strip('"') != remote.tag:
        raise _changed(remote)
    encrypted = head.get("ServerSideEncryption", "").startswith("aws:kms") or "SSECustomerAlgorithm" in head
    return encrypted or "-" in remote.tag  # else the tag is an MD5, which the content does not have


def _store(data: bytes, remote: Remote, staging: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=staging, delete=False) as file:
        file.write(data)
    remote.place.parent.mkdir(parents=True, exist_ok=True)
    Path(file.name).replace(remote.place)


def _changed(remote: Remote) -> DataError:
    return DataError(
        f"{remote.address}: changed or was deleted since it was listed (content tag {remote.tag}, "
        f"{remote.size:,} bytes then); run again when nobody writes there"
    )


def _is_plain(address: str) -> bool:
    """Whether Metaflow's client finds the key in the address again ('?', ';' and line ends are lost in URLs)."""
    key = address.removeprefix("s3://").partition("/")[2]
    return urlparse(address, allow_fragments=False).path == f"/{key}" and key == key.lstrip("/")


def _chunks(objects: Sequence[Remote]) -> Iterator[list[Remote]]:
    chunk: list[Remote] = []
    held = 0
    for remote in objects:
        if chunk and (len(chunk) >= CHUNK_OBJECTS or held + remote.size > CHUNK_BYTES):
            yield chunk
            chunk, held = [], 0
        chunk.append(remote)
        held += remote.size
    if chunk:
        yield chunk


def _make_staging(staging: Path, wanted: int) -> None:
    """Make the folder, remove what runs that were killed long ago left, and check that all will fit.

    Raises:
        StorageError: it cannot be made, or there is too little space.
    """
    try:
        staging.mkdir(parents=True, exist_ok=True)
        for entry in staging.iterdir():
            if time.time() - entry.stat().st_mtime > _STAGING_LIFE_S:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                _log.info("event=unfinished_files_removed path=%s", entry)
        free = shutil.disk_usage(staging).free
    except FileNotFoundError:  # another run finished there
        return
    except OSError as error:
        raise StorageError(f"{staging}: cannot store what comes from S3 ({error.strerror})") from error
    if free < wanted:
        raise StorageError(
            f"{staging}: the images of S3 need {wanted / 1e9:.1f} GB, found {free / 1e9:.1f} GB free; "
            "free some space there"
        )


@contextmanager
def _bar(total: int, wanted: bool) -> Iterator[Callable[[int], None]]:
    """A function that moves a progress bar on by so many bytes; the bar is seen only in a terminal."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda count: None
        return
    columns = (TextColumn("fetching images"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("fetching images", total=total)
        yield lambda count: bar.advance(task, count)
