"""The sequence: numbers that never repeat for a thing, whatever happens to the process or the disk.

A number is given out in memory, before its result is on disk, and may be seen outside at once (the line's output). So
numbers are reserved in blocks: `sequence.json` durably says that all numbers below `reserved` may have been given out.
After a clean end the next start goes on without a gap. After a crash it begins at `reserved`, and the numbers between
the last stored result and there are recorded as a **gap**.

How many numbers of a gap were given to results that never reached the disk (camera frames that are lost)? The writer
notes the highest number given out in `sequence.given` on every round, without syncing. A killed process leaves that
exact to within the last round; after a power loss it may be older, so the count is then a lower bound.

While no block can be reserved (the disk refuses), or when the mark cannot be read, numbers go on from the clock
(milliseconds since 2020), or from a large random number when the clock is plainly wrong: both lie far above any number
counted up so far. A new spool begins there too, so a device that got a new disk does not repeat the numbers of its old.
What that rests on: fewer than a thousand results a second, and a clock that is not set back between two programs that
both end without having found a disk.
"""

import json
import logging
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import SpoolError
from edge.spool.files import replace_file
from edge.spool.records import Gap

SCHEMA = "1.0"
MARK_FILE = "sequence.json"
GIVEN_FILE = "sequence.given"
BLOCK = 4096  # numbers reserved at a time: at 20 parts/s two small writes in seven minutes
EPOCH_S = 1577836800  # 2020-01-01T00:00:00Z
PLAUSIBLE_S = 1735689600  # 2025-01-01: a clock before this was never set
BEYOND_CLOCK = 1 << 45  # above the clock's numbers for a thousand years; plus 40 random bits still exact in JSON

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Mark:
    reserved: int  # all numbers below may have been given out
    open: int  # lowest number that was not settled when the mark was written
    clean: bool  # the program ended in order: `reserved` is the next number


class Numbering:
    """Gives out numbers. `take` is called under the spool's lock, all else on one thread at a time.

    Args:
        folder: of the spool.
        wall_clock: unix seconds.
    """

    def __init__(self, folder: Path, wall_clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._wall_clock = wall_clock
        self._given_file: int | None = None
        self._noted = -1
        self._jumped = False
        self.opened = False
        self.next = 0
        self.limit = 0  # numbers below are reserved
        self.gaps: list[Gap] = []  # to be stored
        self.lost = 0  # results of the program before this one that never reached the disk
        self.unclean = False  # the program before this one did not end in order

    def peek(self) -> int:
        """The number that `take` will give."""
        if self.next >= self.limit and not self._jumped:
            self._jump()
        return self.next

    def take(self) -> int:
        """The next number."""
        number = self.peek()
        self.next = number + 1
        return number

    def find_start(self, highest: int | None) -> None:
        """Find where to go on. The gaps must be stored before `reserve` overwrites what tells of them.

        Args:
            highest: the largest number in the database.

        Raises:
            SpoolError: the mark is of another major version.
            OSError: the disk refuses.
        """
        mark = self._read_mark()
        given = self._read_given()
        if not self.opened:
            start = 0 if highest is None else highest + 1
            if mark is None:
                start = max(start, self.next or self._unreserved())
            elif not mark.clean:
                self.unclean = True
                self._note_gap(mark, start, given)
            self.opened = True
            self.next = max(self.next, start, 0 if mark is None else mark.reserved)

    def reserve(self, unsettled: int) -> None:
        """Durably reserve the next block.

        Args:
            unsettled: lowest number whose result is not on disk yet.

        Raises:
            OSError: the disk refuses.
        """
        limit = self.next + BLOCK
        self._write_mark(_Mark(limit, min(unsettled, self.next), clean=False))
        self.limit = limit
        self._jumped = False

    def runs_low(self) -> bool:
        """Whether it is time to reserve."""
        return self.next > self.limit - BLOCK // 2

    def note_given(self) -> None:
        """Leave a note of the highest number given out, for the next start after a crash; not synced.

        Raises:
            OSError: the disk refuses.
        """
        if self._noted == self.next:
            return
        if self._given_file is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._given_file = os.open(self._folder / GIVEN_FILE, flags, 0o644)
        self._noted = self.next
        os.pwrite(self._given_file, b"%020d\n" % (self.next - 1), 0)

    def let_go(self) -> None:
        """Close the file of the note; the next note opens it anew."""
        if self._given_file is not None:
            os.close(self._given_file)
            self._given_file = None
            self._noted = -1

    def close(self) -> None:
        """Note a clean end: everything given out is on disk.

        Raises:
            OSError: the disk refuses.
        """
        self.let_go()
        self._write_mark(_Mark(self.next, self.next, clean=True))

    def start_without_disk(self) -> None:
        """Begin although the mark cannot be read."""
        if self.next == 0:
            self.next = self._unreserved()
            self._jumped = True

    def _jump(self) -> None:
        """Leave the numbers that the next start may give out again, because none could be reserved."""
        self._jumped = True
        first, self.next = self.next, max(self.next, self._unreserved())
        if self.next > first:
            self.gaps.append(Gap(first, self.next, 0, "unreserved", self._wall_clock()))
            log.warning("event=sequence_unreserved first=%d next=%d", first, self.next)

    def _unreserved(self) -> int:
        now = self._wall_clock()
        if now < PLAUSIBLE_S:
            return BEYOND_CLOCK + secrets.randbits(40)
        return int((now - EPOCH_S) * 1000)

    def _note_gap(self, mark: _Mark, start: int, given: int | None) -> None:
        first = max(start, mark.open)
        if first >= mark.reserved:
            return
        last = given if given is not None and first <= given < mark.reserved else first - 1
        gap = Gap(first, mark.reserved, last - first + 1, "crash", self._wall_clock())
        self.gaps.append(gap)
        self.lost += gap.lost
        log.warning("event=sequence_gap first=%d next=%d lost=%d reason=crash", first, mark.reserved, gap.lost)

    def _write_mark(self, mark: _Mark) -> None:
        document = {"schema": SCHEMA, "reserved": mark.reserved, "open": mark.open, "clean": mark.clean}
        replace_file(self._folder / MARK_FILE, (json.dumps(document) + "\n").encode())

    def _read_mark(self) -> _Mark | None:
        path = self._folder / MARK_FILE
        try:
            document: Any = json.loads(path.read_bytes())
            schema = str(document["schema"])
            if schema.split(".")[0] != SCHEMA.split(".")[0]:
                raise SpoolError(
                    f"{path}: schema {schema} has another major version than {SCHEMA}; update this program, or move "
                    "the folder away and start with an empty one"
                )
            return _Mark(int(document["reserved"]), int(document["open"]), document["clean"] is True)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            log.error("event=sequence_mark_unreadable path=%s error=%r", path, error)
            return None

    def _read_given(self) -> int | None:
        try:
            return int((self._folder / GIVEN_FILE).read_bytes())
        except (FileNotFoundError, ValueError):  # not there yet, or half of it written when the power failed
            return None
