"""What the spool tells about itself, and the ticket for a result that was handed to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edge.results import Result
from edge.spool.images import KeptImage


@dataclass(frozen=True)
class FoldedCounts:
    """Pass results that made room and are now only counted: of one hour, model and operating point."""

    thing: str
    line: str
    hour: int  # unix seconds at which the hour of capture begins
    package: str
    operating_point: str
    count: int
    first_sequence: int
    last_sequence: int

    @property
    def id(self) -> str:
        """Receivers drop repeats by it."""
        return f"{self.thing}-folded-{self.last_sequence}"


@dataclass(frozen=True)
class Gap:
    """Numbers that no result will ever have: what was given out and never committed, and what was only reserved.

    `lost` of them were given to results; of a power loss it is a lower bound (see `edge.spool.numbering`).
    """

    first_sequence: int
    next_sequence: int  # the first number after the gap
    lost: int
    reason: Literal["crash", "unreserved"]
    noticed_at: float  # unix seconds, wall clock


@dataclass(frozen=True)
class SpoolFigures:
    """How the spool does."""

    state: Literal["ok", "memory"]  # memory: the disk refuses, new results are only in memory
    reason: str | None  # of memory
    notice: str | None  # what happened to the disk earlier and somebody should look at: a damaged database moved aside
    queue_length: int  # results that were not sent
    oldest_age_s: float | None  # seconds that the oldest of them has waited
    in_memory: int  # results not yet on disk
    bytes: int  # of database and images
    quota_bytes: int
    evicted: dict[str, int]  # since the spool was made, by class: pass, audit-image, ..., see edge.spool.eviction
    folded: int  # pass results that are now only counted, since the spool was made
    upload_backlog: int  # images that the store has not confirmed
    next_sequence: int
    gaps: int  # gaps in the sequence since the spool was made
    lost: int  # results in them that were given a number and never committed
    duplicates: int  # results put although their source key was known
    commits: int  # since this program started
    commit_ms: float  # milliseconds that a commit takes, a moving average
    newly_lost: int = 0  # of `lost`: by the program before this one, found at the start


@dataclass(eq=False)
class Entry:
    """A result that is not yet on disk."""

    result: Result
    body: str  # the result as JSON
    image: KeptImage | None
    put_s: float  # time.monotonic()
    bytes: int  # that it holds in memory, roughly
    stored: bool = False  # the result is on disk, only its image is not
    taken: bool = False  # the writer is about to write it
    sent: bool = False
    durable: bool = False
    dropped: bool = False


class Ticket:
    """Tells what became of a result that was put into the spool."""

    def __init__(
        self, entry: Entry, changed: threading.Condition, refusing: Callable[[], str | None], hurry: Callable[[], None]
    ) -> None:
        self._entry = entry
        self._changed = changed
        self._refusing = refusing
        self._hurry = hurry

    @property
    def result(self) -> Result:
        """The result with its sequence; once durable, the stored one, should its source key have been known."""
        return self._entry.result

    @property
    def durable(self) -> bool:
        """True once the result is committed and synced."""
        return self._entry.durable

    @property
    def dropped(self) -> bool:
        """True when memory was full before the disk came back: the result is only counted."""
        return self._entry.dropped

    def done(self) -> bool:
        """True when there is nothing to wait for: it is durable, or the disk refuses it for now, or it was dropped."""
        return self._entry.durable or self._entry.dropped or self._refusing() is not None

    def wait(self, timeout_s: float) -> bool:
        """Have it committed at once and wait for that; returns `durable`."""
        end = time.monotonic() + timeout_s
        with self._changed:
            if not self.done():
                self._hurry()
            while not self.done():
                left = end - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
        return self._entry.durable
