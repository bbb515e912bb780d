"""One parallel pass over the images of a source: each is read and decoded once.

Threads do it for a small set, processes for a large one, as in `inspection.dataset.preparation`. What comes back of an
image is about 1.5 kB, so memory does not depend on the size of the pictures.
"""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from edge.contract import InputContract
from inspection.dataset.folders import shown
from inspection.dataset.image_facts import Looked, look_at
from inspection.dataset.images import Source, SourceImage
from inspection.dataset.parallel import (
    PROCESSES_FROM,
    available_cores,
    cut_chunks,
    end_with_parent,
    map_ahead,
    progress_bar,
    take_finished,
)
from inspection.errors import DataError

_AHEAD = 64  # images that threads may be ahead
_LARGEST_CHUNK = 256  # images that a process takes at once


@dataclass(frozen=True)
class Looker:
    """Looks at images of a source; sent to worker processes once."""

    source: Source
    contract: InputContract

    def look(self, image: SourceImage) -> Looked:
        """Read and measure one image."""
        return look_at(image, self.source.read, self.contract)


def look_at_all(
    images: Sequence[SourceImage],
    source: Source,
    contract: InputContract,
    workers: int | None = None,
    progress: bool = True,
) -> Iterator[Looked]:
    """Look at every image once, in any order.

    Args:
        images: of the source.
        source: reads them.
        contract: the model's input, which the pictures must serve.
        workers: threads or processes; default one per core that this process may use.
        progress: show a bar on stderr if that is a terminal.

    Raises:
        DataError: a worker process died.
    """
    workers = workers or available_cores()
    looker = Looker(source, contract)
    with progress_bar(len(images), progress, "checking images") as advance:
        if len(images) < PROCESSES_FROM * workers or workers == 1:
            with ThreadPoolExecutor(workers) as pool:
                for looked in map_ahead(pool, looker.look, images, _AHEAD):
                    advance(1)
                    yield looked
        else:
            for chunk in _with_processes(looker, images, workers):
                advance(len(chunk))
                yield from chunk


def _with_processes(looker: Looker, images: Sequence[SourceImage], workers: int) -> Iterator[list[Looked]]:
    # spawn: a fork would copy the locks of this process's threads, and Python is leaving fork
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, spawn, _start_worker, (looker,))
    running: dict[Future[list[Looked]], list[SourceImage]] = {}
    try:
        for chunk in cut_chunks(images, workers, _LARGEST_CHUNK):
            running[pool.submit(_look_at_chunk, chunk)] = chunk
            if len(running) >= 2 * workers:
                yield from take_finished(running)
        while running:
            yield from take_finished(running)
    except BrokenProcessPool:
        suspects = [image.uri for chunk in running.values() for image in chunk]
        raise DataError(
            f"{looker.source.location}: a worker process died while it looked at one of {shown(suspects)}; if memory "
            "ran out, use fewer cores (taskset -c 0-3 …), else remove the file that crashes its decoder"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_looker: Looker | None = None  # of this worker process


def _start_worker(looker: Looker) -> None:
    global _looker
    end_with_parent()
    _looker = looker


def _look_at_chunk(images: list[SourceImage]) -> list[Looked]:
    assert _looker is not None
    return [_looker.look(image) for image in images]
