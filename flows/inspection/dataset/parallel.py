"""Spreading work over cores: how images are cut into chunks, taken in order, and how far it has come."""

import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from multiprocessing import connection
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PROCESSES_FROM = 400  # images per worker. A process costs 0.25 s of its core to start; threads share one interpreter
# lock, which an image holds for 6 % of its time, so beyond a few cores they no longer scale: see docs/decisions/0004
WAITING = 1  # processes more than cores, since one of them waits for the disk or for the next chunk
_SMALLEST_CHUNK = 8  # images; the last chunks are small, so that all cores end together

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_ahead(
    pool: Executor, function: Callable[[Item], Result], items: Sequence[Item], window: int
) -> Iterator[Result]:
    """What the function gives for each item, in their order, at most `window` of them ahead of the one taken."""
    running: deque[Future[Result]] = deque()
    try:
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) >= window:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()


def cut_chunks(items: Sequence[Item], workers: int, most: int) -> Iterator[list[Item]]:
    """Cut items into chunks of at most so many, smaller towards the end."""
    start = 0
    while start < len(items):
        size = max(1, min(most, max(_SMALLEST_CHUNK, (len(items) - start) // (2 * workers))))
        yield list(items[start : start + size])
        start += size


def take_finished(running: dict[Future[Result], list[Item]]) -> Iterator[Result]:
    """Wait until some are finished; give their results and forget them."""
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        result = future.result()
        del running[future]
        yield result


def end_with_parent() -> None:
    """Let this worker process end when its parent is killed: the pool's queues would keep it waiting for ever."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


@contextmanager
def progress_bar(total: int, wanted: bool, title: str) -> Iterator[Callable[[int], None]]:
    """A function that moves a progress bar on; the bar is seen only in a terminal."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda count: None
        return
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)
