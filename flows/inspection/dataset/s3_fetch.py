"""Many objects of S3 at once, each verified before it gets its name.

A few are fetched by threads. For more, chunks of objects are fetched into a staging folder by `metaflow.S3`, which
retries what S3 throttles. A file is moved to its place only when it is proven to be the listed one. So a half file
never has a name, and what a killed run leaves in the staging folder is taken by the next one, known by its content.
"""

import hashlib
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from inspection.dataset.s3_object import Remote, changed, fetch_one, matches
from inspection.errors import StorageError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_log = logging.getLogger(__name__)

DIRECT_OBJECTS = 5000  # so many are fetched by threads, sooner than Metaflow's client starts
CHUNK_OBJECTS = 5000  # fetched by one start of Metaflow's client, which takes two or three seconds of a core
CHUNK_BYTES = 2 << 30
_THREADS = 16  # that fetch one object each
_WORKERS_PER_CORE = 4  # of Metaflow's client, which mostly wait for S3; each takes 0.15 s of a core to start
_LEAST_WORKERS = 8
_LOOK_EVERY_S = 0.5  # for the progress bar
_STAGING = ".staging"
_STAGING_LIFE_S = 24 * 3600  # what a killed run left is removed after this long


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
    ordered = sorted(_salvage(objects, staging), key=lambda remote: remote.address)
    direct = [one for one in ordered if len(ordered) <= DIRECT_OBJECTS or not _is_plain(one.address)]
    plain = [one for one in ordered if len(ordered) > DIRECT_OBJECTS and _is_plain(one.address)]
    # read by Metaflow's client when it starts; its default of 64 costs a small machine more than it gains
    workers = min(64, max(_LEAST_WORKERS, _WORKERS_PER_CORE * (os.cpu_count() or 1)))
    os.environ.setdefault("METAFLOW_S3_WORKER_COUNT", str(workers))
    with _bar(total, progress) as show:
        done = total - sum(remote.size for remote in ordered)
        show(done)
        for remote in _run(_THREADS, lambda one: _store(fetch_one(one, client), one, staging), direct):
            done += remote.size
            show(done)
        for chunk in _chunks(plain):
            with _watched(staging, done, show):
                _fetch_chunk(chunk, staging, client)
            done += sum(remote.size for remote in chunk)
            show(done)
    seconds = time.monotonic() - started
    _log.info(
        "event=images_fetched count=%d mb=%.1f seconds=%.1f mb_per_s=%.1f",
        len(objects),
        total / 1e6,
        seconds,
        total / 1e6 / max(seconds, 1e-3),
    )


def _run(threads: int, function: Callable[[Remote], object], items: Sequence[Remote]) -> Iterator[Remote]:
    """Do it for every item and yield those that are done; the first error stops what has not begun."""
    with ThreadPoolExecutor(threads) as pool:
        running = {pool.submit(function, item): item for item in items}
        try:
            for future in as_completed(running):
                future.result()
                yield running[future]
        finally:
            for future in running:
                future.cancel()


def _salvage(objects: Sequence[Remote], staging: Path) -> list[Remote]:
    """Take what a killed run had fetched and not stored yet, known by its content; what is left to fetch."""
    wanted = {(remote.size, remote.tag): remote for remote in objects}
    sizes = {remote.size for remote in objects}
    taken = set()
    for path in staging.glob("*/*"):
        try:
            if path.stat().st_size not in sizes:
                continue
            data = path.read_bytes()
            remote = wanted.get((len(data), hashlib.md5(data, usedforsecurity=False).hexdigest()))
            if remote is not None and remote.address not in taken:
                _store(data, remote, staging)
                taken.add(remote.address)
        except FileNotFoundError:
            continue  # another run, which is alive, stored it
    if taken:
        _log.info("event=unfinished_fetch_resumed files=%d", len(taken))
    return [remote for remote in objects if remote.address not in taken]


def _fetch_chunk(chunk: Sequence[Remote], staging: Path, client: "S3Client") -> None:
    from metaflow import S3
    from metaflow.plugins.datatools.s3 import MetaflowS3AccessDenied, MetaflowS3Exception

    where = f"{chunk[0].address} and {len(chunk) - 1} more" if len(chunk) > 1 else chunk[0].address
    with S3(tmproot=str(staging)) as s3:
        try:
            got = s3.get_many([remote.address for remote in chunk], return_missing=True, return_info=False)
        except MetaflowS3AccessDenied as error:
            raise StorageError(
                f"{where}: fetching: access denied ({_one_line(error)}); these credentials need s3:GetObject there"
            ) from error
        except MetaflowS3Exception as error:
            raise StorageError(
                f"{where}: fetching: {_one_line(error)}; run again: what was fetched so far stays"
            ) from error
        paths = [Path(item.path) if item.path else None for item in got]
        gone = [remote for remote, path in zip(chunk, paths, strict=True) if path is None]
        if gone:
            raise changed(gone[0])
        arrived = {remote.address: path for remote, path in zip(chunk, paths, strict=True) if path is not None}
        doubtful: list[Remote] = []
        for _ in _run(os.cpu_count() or 1, lambda one: _take(one, arrived[one.address], doubtful), chunk):
            pass
    for _ in _run(_THREADS, lambda one: _store(fetch_one(one, client), one, staging), doubtful):
        pass


def _take(remote: Remote, path: Path, doubtful: list[Remote]) -> None:
    """Give a file that arrived its name if it is proven by the content tag."""
    data = path.read_bytes()
    if len(data) == remote.size and matches(data, remote):
        remote.place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(remote.place)
    else:
        doubtful.append(remote)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).removeprefix("s3op failed:").split())


def _store(data: bytes, remote: Remote, staging: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=staging, delete=False) as file:
        file.write(data)
    remote.place.parent.mkdir(parents=True, exist_ok=True)
    Path(file.name).replace(remote.place)


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
def _watched(staging: Path, before: int, show: Callable[[int], None]) -> Iterator[None]:
    """Show, while this lasts, how many bytes lie in the staging folder beside those of before."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_LOOK_EVERY_S):
            with suppress(FileNotFoundError):  # a file was stored meanwhile
                show(before + sum(path.stat().st_size for path in staging.glob("*/*")))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _bar(total: int, wanted: bool) -> Iterator[Callable[[int], None]]:
    """A function that sets a progress bar to so many bytes; the bar is seen only in a terminal."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda count: None
        return
    columns = (TextColumn("fetching images"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("fetching images", total=total)
        yield lambda count: bar.update(task, completed=min(count, total))
