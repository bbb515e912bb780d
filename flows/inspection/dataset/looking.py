"""One parallel pass over the images of a source: each is read, hashed and decoded once, in bounded memory.

The same decoded picture is measured and, where the pass has a cache to fill, brought to the model's size. Threads do it
for a small set, and this thread writes the shards. For a large set, worker processes take chunks of images and each
writes its chunk as one shard, so that no pixel crosses a process. A killed run keeps every finished shard. What comes
back of an image is about 1.5 kB.
"""

import itertools
import multiprocessing
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.contract import InputContract
from inspection.dataset.cache import SHARD_BYTES, CachedImage
from inspection.dataset.files import shown
from inspection.dataset.images import Source, SourceImage
from inspection.dataset.parallel import (
    PROCESSES_FROM,
    WAITING,
    available_cores,
    cut_chunks,
    map_ahead,
    progress_bar,
    take_finished,
)
from inspection.dataset.worker import Job, Looked, Worker, look_at_chunk, start_worker
from inspection.errors import DataError
from inspection.storage import Storage

_ROWS_BY_THREADS = 64  # images of a shard that threads fill
_LARGEST_CHUNK = 512  # images that a process takes at once


@dataclass(frozen=True)
class Target:
    """The cache that pixels go into."""

    storage: Storage
    cached: Mapping[str, CachedImage]  # what is in it, by sha256: such images are not brought into it again


def look_at_all(
    images: Sequence[SourceImage],
    source: Source,
    contract: InputContract,
    workers: int | None = None,
    progress: bool = True,
    target: Target | None = None,
    measured: bool = True,
) -> Iterator[Looked]:
    """Look at every image once, in any order.

    Args:
        images: of the source.
        source: reads them.
        contract: the model's input.
        workers: threads or processes; default one per core that this process may use.
        progress: show a bar on stderr if that is a terminal.
        target: where their pixels go; None: nowhere.
        measured: False: they were measured before, only digests and pixels are wanted.

    Raises:
        DataError: a worker process died.
        StorageError: the cache cannot be written.
    """
    if not images:
        return
    workers = workers or available_cores()
    title = " and ".join([*(["checking"] if measured else []), *(["preparing"] if target else [])])
    with (
        tempfile.TemporaryDirectory(prefix="lineside-") as folder,
        progress_bar(len(images), progress, f"{title} images") as advance,
    ):
        known = Path(folder) / "known.npy"
        if target:
            np.save(known, np.array(sorted(target.cached), dtype="S64"))
        job = Job(source, contract, measured, target.storage.root if target else "", str(known))
        look = _with_threads if len(images) < PROCESSES_FROM * workers or workers == 1 else _with_processes
        for chunk in look(job, images, workers):
            advance(len(chunk))
            yield from chunk


def _rows_per_shard(contract: InputContract) -> int:
    return max(1, SHARD_BYTES // (contract.width * contract.height * 3))


def _with_threads(job: Job, images: Sequence[SourceImage], workers: int) -> Iterator[list[Looked]]:
    """Threads read and decode; this one writes, while they go on with the images that come next."""
    worker = Worker(job)
    rows = min(_ROWS_BY_THREADS, _rows_per_shard(job.contract))
    with ThreadPoolExecutor(workers) as pool:
        looked = map(worker.look, images) if workers == 1 else map_ahead(pool, worker.look, images, rows)
        for start in range(0, len(images), rows):
            yield worker.store(itertools.islice(looked, rows), min(rows, len(images) - start))


def _with_processes(job: Job, images: Sequence[SourceImage], workers: int) -> Iterator[list[Looked]]:
    """Hand chunks to worker processes, never more than two per worker at a time."""
    # spawn: a fork would copy the locks of this process's threads, and Python is leaving fork
    spawn = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers + WAITING, spawn, start_worker, (job,))
    running: dict[Future[list[Looked]], list[SourceImage]] = {}
    try:
        for chunk in cut_chunks(images, workers, min(_LARGEST_CHUNK, _rows_per_shard(job.contract))):
            running[_submit(pool, chunk)] = chunk
            if len(running) >= 2 * workers:
                yield from take_finished(running)
        while running:
            yield from take_finished(running)
    except BrokenProcessPool:
        # a worker that was being started while the pool broke is not ended by it, and would be waited for without end
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        suspects = [image.uri for chunk in running.values() for image in chunk] or [image.uri for image in images]
        raise DataError(
            f"{job.source.location}: a worker process died while it looked at one of {shown(suspects)}; if memory "
            "ran out, use fewer cores (taskset -c 0-3 …), else remove the file that crashes its decoder"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, chunk: list[SourceImage]) -> Future[list[Looked]]:
    """Hand a chunk to the workers.

    Raises:
        BrokenProcessPool: a worker died; or dies just now, while the pool starts another one: its pipes are then closed
            under the one that is being started, which Python tells as a bad descriptor.
    """
    try:
        return pool.submit(look_at_chunk, chunk)
    except (ValueError, OSError) as error:
        raise BrokenProcessPool(str(error)) from error
