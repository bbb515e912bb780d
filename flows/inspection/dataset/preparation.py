"""Reading, decoding and resizing images into the pixel cache, on all cores, in memory that does not grow with the set.

Worker processes take chunks of uris; each file is read once, hashed and decoded by `edge.preprocess`; a worker writes
its chunk as one shard, so that no pixel crosses a process and a killed run keeps every finished chunk.
"""

import hashlib
import logging
import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for_sentinel
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge.contract import InputContract
from edge.errors import EdgeError
from edge.preprocess import prepare_file
from inspection.dataset.cache import SHARD_BYTES, CachedImage, ShardBuffer, cache_prefix
from inspection.dataset.folders import shown
from inspection.dataset.sources import Source
from inspection.errors import DataError
from inspection.storage import Storage, open_storage

_log = logging.getLogger(__name__)

_SMALLEST_CHUNK = 8  # images; the last chunks are small, so that all cores end together
_FEW = 32  # images that this process prepares faster than others would start


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What reading an image's file told."""

    sha256: str
    width: int  # px, upright
    height: int  # px


@dataclass(frozen=True)
class Read:
    """What became of the images of a run."""

    facts: dict[str, FileFacts]  # by uri
    faults: dict[str, str]  # by uri: why it could not be read or decoded


@dataclass(frozen=True)
class _Job:
    """What a worker must know; sent to it once."""

    source: Source
    contract: InputContract
    storage_root: str
    known: str  # .npy file with the sorted digests that are in the cache, S64


def read_images(
    uris: Sequence[str],
    source: Source,
    contract: InputContract,
    storage: Storage,
    cached: Mapping[str, CachedImage],
    workers: int | None = None,
    progress: bool = True,
) -> Read:
    """Read every image once and bring those that are not in the cache into it.

    Args:
        uris: which images of the source.
        source: reads them.
        contract: how they become pixels.
        storage: where the cache is.
        cached: what is in it, by sha256; such files are hashed but not decoded.
        workers: processes; default one per core that this process may use.
        progress: show a bar on stderr if that is a terminal.

    Raises:
        StorageError: the cache cannot be written.
        DataError: a worker process died.
    """
    workers = workers or _cores()
    read = Read({}, {})
    if not uris:
        return read
    with tempfile.TemporaryDirectory(prefix="lineside-") as folder, _bar(len(uris), progress) as advance:
        known = Path(folder) / "known.npy"
        np.save(known, np.array(sorted(cached), dtype="S64"))
        job = _Job(source, contract, storage.root, str(known))
        chunks = _chunks(uris, workers, _rows_per_shard(contract))
        results = (
            _in_this_process(job, chunks) if min(workers, len(uris) // _FEW) < 2 else _in_pool(job, chunks, workers)
        )
        for part in results:
            read.facts.update(part.facts)
            read.faults.update(part.faults)
            advance(len(part.facts) + len(part.faults))
    for uri, facts in read.facts.items():
        if facts.sha256 in cached:
            there = cached[facts.sha256]
            read.facts[uri] = FileFacts(facts.sha256, there.width, there.height)
    return read


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _rows_per_shard(contract: InputContract) -> int:
    return max(1, SHARD_BYTES // (contract.width * contract.height * 3))


def _chunks(uris: Sequence[str], workers: int, most: int) -> Iterator[list[str]]:
    """Cut the images into chunks, smaller towards the end."""
    start = 0
    while start < len(uris):
        size = max(1, min(most, max(_SMALLEST_CHUNK, (len(uris) - start) // (2 * workers))))
        yield list(uris[start : start + size])
        start += size


def _in_this_process(job: _Job, chunks: Iterator[list[str]]) -> Iterator[Read]:
    worker = _Worker(job)
    for chunk in chunks:
        yield worker.prepare(chunk)


def _in_pool(job: _Job, chunks: Iterator[list[str]], workers: int) -> Iterator[Read]:
    """Hand chunks to worker processes, never more than two per worker at a time."""
    # spawn: a fork would copy the locks of this process's threads, and Python is leaving fork
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, (job,))
    running: dict[Future[Read], list[str]] = {}
    try:
        for chunk in chunks:
            running[pool.submit(_prepare_chunk, chunk)] = chunk
            if len(running) >= 2 * workers:
                yield from _finished(running)
        while running:
            yield from _finished(running)
    except BrokenProcessPool:
        suspects = [uri for chunk in running.values() for uri in chunk]
        raise DataError(
            f"{job.source.location}: a worker process died while it prepared one of {shown(suspects)}; if memory ran "
            "out, use fewer cores (taskset -c 0-3 …), else remove the file that crashes its decoder"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(running: dict[Future[Read], list[str]]) -> Iterator[Read]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        result = future.result()
        del running[future]
        yield result


class _Worker:
    """Prepares chunks."""

    def __init__(self, job: _Job) -> None:
        self._source, self._contract = job.source, job.contract
        self._storage = open_storage(job.storage_root)
        self._prefix = cache_prefix(job.contract)
        self._known = np.load(job.known, mmap_mode="r")

    def prepare(self, uris: list[str]) -> Read:
        """Read a chunk of images; those that are new become one shard."""
        read = Read({}, {})
        buffer = ShardBuffer(len(uris), self._contract)
        added: dict[str, FileFacts] = {}
        for uri in uris:
            try:
                data = self._source.read(uri)
                sha256 = hashlib.sha256(data).hexdigest()
                if sha256 in added:
                    read.facts[uri] = added[sha256]
                elif self._is_known(sha256):
                    read.facts[uri] = FileFacts(sha256, 0, 0)  # the size is in the cache's index
                else:
                    prepared = prepare_file(data, self._contract, uri)
                    added[sha256] = FileFacts(sha256, prepared.width_px, prepared.height_px)
                    read.facts[uri] = added[sha256]
                    buffer.add(sha256, prepared.pixels, prepared.width_px, prepared.height_px)
            except EdgeError as error:
                read.faults[uri] = str(error).removeprefix(f"{uri}: ")
            except OSError as error:
                read.faults[uri] = error.strerror or str(error)
        buffer.store(self._storage, self._prefix)
        return read

    def _is_known(self, sha256: str) -> bool:
        wanted = sha256.encode()
        place = int(np.searchsorted(self._known, wanted))
        return place < len(self._known) and self._known[place] == wanted


_worker: _Worker | None = None  # of this worker process


def _start_worker(job: _Job) -> None:
    global _worker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = _Worker(job)


def _end_with_parent() -> None:
    """End this worker when its parent is killed: the pool's queues would keep it waiting for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for_sentinel([parent.sentinel])
    os._exit(1)


def _prepare_chunk(uris: list[str]) -> Read:
    assert _worker is not None
    return _worker.prepare(uris)


@contextmanager
def _bar(total: int, wanted: bool) -> Iterator:
    """A function that moves a progress bar on; the bar is seen only in a terminal."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda count: None
        return
    columns = (TextColumn("preparing images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("preparing images", total=total)
        yield lambda count: bar.advance(task, count)
