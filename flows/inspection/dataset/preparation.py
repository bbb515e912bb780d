"""Reading, decoding and resizing images into the pixel cache, on all cores, in memory that does not grow with the set.

Workers (threads for a small set, processes for a large one) take chunks of uris; each file is read once, hashed and
decoded by `edge.preprocess`; a worker writes its chunk as one shard, so that no pixel crosses a process and a killed
run keeps every finished chunk.
"""

import logging
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge.contract import InputContract
from inspection.dataset.cache import SHARD_BYTES, CachedImage
from inspection.dataset.folders import shown
from inspection.dataset.sources import Source
from inspection.dataset.worker import FileFacts, Job, Read, Worker, prepare_chunk, start_worker
from inspection.errors import DataError
from inspection.storage import Storage

_log = logging.getLogger(__name__)

_SMALLEST_CHUNK = 8  # images; the last chunks are small, so that all cores end together
PROCESSES_FROM = 400  # images per worker. A process costs 0.25 s of its core to start; threads share one interpreter
# lock, which an image holds for 6 % of its time, so beyond a few cores they no longer scale: see docs/decisions/0004


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
        workers: threads or processes; default one per core that this process may use.
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
        job = Job(source, contract, storage.root, str(known))
        chunks = _chunks(uris, workers, _rows_per_shard(contract))
        results = _in_this_process(job, chunks) if workers == 1 else _in_pool(job, chunks, workers, len(uris))
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


def _in_this_process(job: Job, chunks: Iterator[list[str]]) -> Iterator[Read]:
    worker = Worker(job)
    for chunk in chunks:
        yield worker.prepare(chunk)


def _in_pool(job: Job, chunks: Iterator[list[str]], workers: int, images: int) -> Iterator[Read]:
    """Hand chunks to a pool of workers, never more than two per worker at a time."""
    running: dict[Future[Read], list[str]] = {}
    pool, prepare = _open_pool(job, workers, images)
    try:
        for chunk in chunks:
            running[pool.submit(prepare, chunk)] = chunk
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


def _open_pool(job: Job, workers: int, images: int) -> tuple[Executor, Callable[[list[str]], Read]]:
    """Threads for a small set, processes for a large one, and the function that either runs on a chunk."""
    if images < PROCESSES_FROM * workers:
        return ThreadPoolExecutor(workers), Worker(job).prepare
    # spawn: a fork would copy the locks of this process's threads, and Python is leaving fork
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, spawn, start_worker, (job,)), prepare_chunk


def _finished(running: dict[Future[Read], list[str]]) -> Iterator[Read]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        result = future.result()
        del running[future]
        yield result


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
