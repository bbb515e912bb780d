"""A part between source and acknowledgement, and what the loop needs of the spool."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from edge.part import Part
from edge.preprocess import MAX_PIXELS
from edge.results import Result
from edge.statistics import ImageStatistics

if TYPE_CHECKING:
    from edge.spool.images import KeptImage


class Ticket(Protocol):
    """A result that is on its way to the disk."""

    @property
    def result(self) -> Result:
        """With its sequence number."""

    @property
    def durable(self) -> bool:
        """Whether it is on the disk."""

    @property
    def dropped(self) -> bool:
        """Whether it never will be: memory was full before the disk came back."""

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is on the disk, or the disk refuses."""


class ResultStore(Protocol):
    """What the loop needs of the spool."""

    def reserve(self) -> int:
        """Take the next number, for a result that the line hears before it is put."""

    @property
    def is_full(self) -> bool:
        """Whether a source that keeps its parts should wait until the disk has taken some results."""

    def find(self, source_key: str) -> Result | None:
        """The result of a part that was inspected before."""

    def put(self, result: Result, image: KeptImage | None = None, reserved: bool = False) -> Ticket:
        """Take a result; returns at once. `reserved`: it has a number of `reserve`."""


@dataclass(frozen=True)
class Limits:
    """What may be changed while the loop runs."""

    deadline_ms: float = 2000.0
    max_unacknowledged: int = 500
    max_pixels: int = MAX_PIXELS


@dataclass
class Pending:
    """A part between source and acknowledgement."""

    key: str  # the part's source key
    part: Part  # without its picture
    repeats: list[Part] = field(default_factory=list)  # the same part, offered again meanwhile
    ticket: Ticket | None = None  # None: no verdict yet, or its result could not be handed to the spool
    result: Result | None = None
    package: str | None = None  # digest of what judged it
    statistics: ImageStatistics | None = None


@dataclass
class Counts:
    """What happened so far."""

    inspected: int = 0
    repeated: int = 0  # parts that had a stored result
    acknowledged: int = 0
    unacknowledged: int = 0  # parts whose results did not reach the disk: a folder's come again after a restart
    faults: Counter[str] = field(default_factory=Counter)  # of the program itself, by place
