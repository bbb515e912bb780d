"""Reading, decoding and resizing images into the pixel cache, on all cores, in memory that does not grow with the set.

Each file is read once, hashed and decoded by `edge.preprocess`. Threads do it for a small set, and this thread writes
the shards. For a large set, worker processes take chunks of uris and each writes its chunk as one shard, so that no
pixel crosses a process. A killed run keeps every finished shard.
"""

import itertools
import logging
import multiprocessing
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from edge.contract import InputContract
from inspection.dataset.cache import SHARD_BYTES, CachedImage
from inspection.dataset.folders import shown
from inspection.dataset.parallel import (
    PROCESSES_FROM,
    WAITING,
    available_cores,
    cut_chunks,
    map_ahead,
    progress_bar,
    take_finished,
)
from inspection.dataset.sources import Source
from inspection.dataset.worker import FileFacts, Job, Read, Worker, prepare_chunk, start_worker
from inspection.errors import DataError
from inspection.storage import Storage

_log = logging.getLogger(__name__)

_ROWS_BY_THREADS = 64  # images of a shard that threads fill


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
    workers = workers or available_cores()
    read = Read({}, {})
    if not uris:
        return read
    with (
        tempfile.TemporaryDirectory(prefix="lineside-") as folder,
        progress_bar(len(uris), progress, "preparing images") as advance,
    ):
        known = Path(folder) / "known.npy"
        np.save(known, np.array(sorted(cached), dtype="S64"))
        job = Job(source, contract, storage.root, str(known))
        prepare = _with_threads if len(uris) < PROCESSES_FROM * workers or workers == 1 else _with_processes
        for part in prepare(job, uris, workers):
            read.facts.update(part.facts)
            read.faults.update(part.faults)
            advance(len(part.facts) + len(part.faults))
    for uri, facts in read.facts.items():
        if facts.sha256 in cached:
            there = cached[facts.sha256]
            read.facts[uri] = FileFacts(facts.sha256, there.width, there.height)
    return read


def _rows_per_shard(contract: InputContract) -> int:
    return max(1, SHARD_BYTES // (contract.width * contract.height * 3))


def _with_threads(job: Job, uris: Sequence[str], workers: int) -> Iterator[Read]:
    """Threads read and decode; this one writes, while they go on with the images that come next."""
    worker = Worker(job)
    rows = min(_ROWS_BY_THREADS, _rows_per_shard(job.contract))
    with ThreadPoolExecutor(workers) as pool:
        images = map_ahead(pool, worker.look, uris, rows)
        for start in range(0, len(uris), rows):
            yield worker.gather(itertools.islice(images, rows), min(rows, len(uris) - start))


def _with_processes(job: Job, uris: Sequence[str], workers: int) -> Iterator[Read]:
    """Hand chunks to worker processes, never more than two per worker at a time."""
    # spawn: a fork would copy the locks of this process's threads, and Python is leaving fork
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers + WAITING, spawn, start_worker, (job,))
    running: dict[Future[Read], list[str]] = {}
    try:
        for chunk in cut_chunks(uris, workers, _rows_per_shard(job.contract)):
            running[pool.submit(prepare_chunk, chunk)] = chunk
            if len(running) >= 2 * workers:
                yield from take_finished(running)
        while running:
            yield from take_finished(running)
    except BrokenProcessPool:
        suspects = [uri for chunk in running.values() for uri in chunk]
        raise DataError(
            f"{job.source.location}: a worker process died while it prepared one of {shown(suspects)}; if memory ran "
            "out, use fewer cores (taskset -c 0-3 …), else remove the file that crashes its decoder"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
