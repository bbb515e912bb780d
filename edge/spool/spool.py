"""The spool: what the inspector hands its results to, and what the sender takes them from.

`put` gives a result its number and returns; a writer thread brings it to disk. A result is acknowledged when its
ticket is `durable`: committed and synced. `find` knows a source key from `put` on until `keep_sent` newer results were
sent or evicted (a thousand when room is short; with `remembers_all` up to a million more), so that a part that is
inspected again gets its stored result.

Order is by sequence, never by a clock. Numbers that no result will have are recorded: see `edge.spool.numbering`.
Missing numbers in what was sent are therefore: results that were folded, evicted or dropped (`evicted`), duplicates,
and gaps, of which `lost` results were given a number and never reached the disk.
"""

import json
import logging
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from edge.errors import SpoolError
from edge.results import Result, canonical_key, dump_result
from edge.spool import rows
from edge.spool.ages import Ages
from edge.spool.images import SENT_SUFFIX, KeptImage
from edge.spool.reader import Reader
from edge.spool.records import Entry, FoldedCounts, Gap, SpoolFigures, Ticket
from edge.spool.settings import SpoolSettings
from edge.spool.unsent import Unsent
from edge.spool.waiting import OVERHEAD_BYTES
from edge.spool.writer import Writer

FORGOT = "there are more files than are remembered: the oldest will be inspected again after a restart; move them away"
ADDITIONS_LIMIT = 1000  # to sidecars, while the disk refuses them

log = logging.getLogger(__name__)

T = TypeVar("T")


class Spool:
    """A spool folder in use. All methods may be called from any thread.

    Args:
        folder: of this spool alone; made when it is not there.
        thing: the device's name, the first part of every id.
        settings: checked.
        wall_clock: unix seconds.
        remembers_all: source keys stay known beyond `keep_sent`: of a folder whose files stay where they are.

    Raises:
        SpoolError: another inspector uses the folder, or it is of another major version. A disk that refuses is no
            error: results are then held in memory, and `figures().state` says so.
    """

    def __init__(
        self,
        folder: Path,
        thing: str,
        settings: SpoolSettings,
        wall_clock: Callable[[], float] = time.time,
        remembers_all: bool = False,
    ) -> None:
        self._thing = thing
        self._settings = settings
        self._wall_clock = wall_clock
        self._ages = Ages(time.monotonic())
        self._reader = Reader(folder)
        self._closed = False
        self._writer = Writer(folder, settings, wall_clock, remembers_all)
        self._unsent = Unsent(self._writer, self._reader, self._read)

    @property
    def on_committed(self) -> Callable[[], None] | None:
        """Called on the writer's thread after results were committed, to wake a sender; must return at once."""
        return self._writer.on_committed

    @on_committed.setter
    def on_committed(self, callback: Callable[[], None] | None) -> None:
        self._writer.on_committed = callback

    @property
    def sends_from_memory(self) -> bool:
        """What happens to results that only memory holds, while the disk refuses.

        True, for a camera: they are delivered, and the least valuable dropped when memory is full. False, for a folder,
        whose parts are inspected again when this process ends before the disk is back: none may have left, nor been
        dropped and counted; `is_full` says when there can be no more of them.
        """
        return not self._writer.waiting.keeps_results

    @sends_from_memory.setter
    def sends_from_memory(self, value: bool) -> None:
        with self._writer.lock:
            self._writer.waiting.keeps_results = not value

    @property
    def is_full(self) -> bool:
        """Whether no more results should come until the disk has taken some; False when some may be dropped instead."""
        with self._writer.lock:
            return self._writer.waiting.full

    @property
    def next_sequence(self) -> int:
        """The number that is given out next."""
        with self._writer.lock:
            return self._writer.numbering.peek()

    def reserve(self) -> int:
        """Take the next number for a result that is put later: the line hears it before. Each must be put."""
        with self._writer.lock:
            sequence = self._writer.numbering.take()
            self._writer.waiting.reserved.add(sequence)
            return sequence

    def find(self, source_key: str) -> Result | None:
        """The result of an inspection with this source key: on disk, or still on its way there."""
        key = canonical_key(source_key)
        with self._writer.lock:
            entry = self._writer.waiting.keys.get(key)
        if entry is not None:
            return entry.result
        return self._read(lambda connection: rows.find_result(connection, key, self._thing), None)

    def put(self, result: Result, image: KeptImage | None = None, reserved: bool = False) -> Ticket:
        """Take a result in; never waits for the disk.

        A source key that is still on its way to the disk gets the ticket of the result that was there first.

        Args:
            result: its `thing` is set here.
            image: to be stored with it.
            reserved: its `sequence` is one that `reserve` gave; else the next is set.

        Raises:
            SpoolError: the spool is closed, or the image's suffix or sidecar cannot be stored.
        """
        try:
            return self._put(result, image, reserved)
        finally:
            if reserved:
                with self._writer.lock:
                    self._writer.waiting.reserved.discard(result.sequence)

    def _put(self, result: Result, image: KeptImage | None, reserved: bool) -> Ticket:
        if image is not None:
            _check_image(image)
        writer = self._writer
        now = time.monotonic()
        with writer.lock:
            if self._closed:
                raise SpoolError("the spool is closed: no result can be put")
            earlier = writer.waiting.keys.get(result.source_key)
            if earlier is not None:
                writer.duplicates += 1
                return self._ticket(earlier)
            sequence = result.sequence if reserved else writer.numbering.take()
            numbered = replace(result, thing=self._thing, sequence=sequence)
            body = dump_result(numbered)
            size = OVERHEAD_BYTES + len(body) + (len(image.data) if image is not None else 0)
            entry = Entry(numbered, body, image, now, size)
            idle = not writer.waiting.entries
            writer.waiting.add(entry)
            self._ages.note(sequence, now)
            if writer.fault is None and (idle or numbered.urgent):
                writer.work.notify()
        return self._ticket(entry)

    def add_image(self, result: Result, image: KeptImage) -> None:
        """Keep the image of a result that was put without one, as if it had been put with it; never waits for the disk.

        Args:
            result: as its ticket has it.
            image: as in `put`.

        Raises:
            SpoolError: the spool is closed, or the image's suffix or sidecar cannot be stored.
        """
        _check_image(image)
        writer = self._writer
        body = dump_result(result)
        size = OVERHEAD_BYTES + len(body) + len(image.data)
        entry = Entry(result, body, image, time.monotonic(), size, stored=True, sent=True, durable=True)
        with writer.lock:
            if self._closed:
                raise SpoolError("the spool is closed: no image can be added")
            writer.waiting.add_image(entry)
            if writer.fault is None:
                writer.work.notify()

    def add_to_sidecar(self, sequence: int, fields: Mapping[str, Any]) -> None:
        """Tell more in the sidecar of a result's image; of no effect when the image is no longer here.

        Args:
            sequence: of the result.
            fields: JSON values by their names in the sidecar.
        """
        writer = self._writer
        with writer.lock:
            entry = writer.waiting.entries.get(sequence)
            if entry is not None and entry.image is not None and not entry.taken:
                entry.image = replace(entry.image, sidecar={**entry.image.sidecar, **fields})
            elif len(writer.additions) < ADDITIONS_LIMIT:
                writer.additions[sequence] = dict(fields)
                writer.work.notify()

    def unsent(self, urgent: bool, limit: int) -> list[Result]:
        """Results that were not marked as sent, oldest first.

        They are committed; while the disk refuses, also those that only memory holds (see `sends_from_memory`). They
        are in the caller's hand until it asks for such results again: till then they are neither folded nor evicted.

        Args:
            urgent: True: fail, review and error; False: pass.
            limit: how many at most.
        """
        return self._unsent.take(urgent, limit)

    def mark_sent(self, ids: Sequence[int]) -> None:
        """The other side has these results; `unsent` lists them no more.

        It is noted on disk with the next commit, or within seconds: a crash before that costs a repeat.

        Args:
            ids: sequences.
        """
        writer = self._writer
        with writer.lock:
            stored = []
            for sequence in ids:
                entry = writer.waiting.entries.get(sequence)
                if entry is not None:
                    entry.sent = True
                if entry is None or entry.taken or entry.stored:
                    stored.append(sequence)
            if stored:
                writer.mark(stored, [])

    def folded(self) -> list[FoldedCounts]:
        """Pass results that were folded into counts and not yet reported, oldest first."""
        writer = self._writer
        with writer.lock:
            hidden = set(writer.folded_marks)
            held = list(writer.waiting.folded) if writer.fault is not None and self.sends_from_memory else []
        nothing: list[FoldedCounts] = []
        stored = self._read(lambda connection: rows.folded_counts(connection, self._thing), nothing)
        return [counts for counts in stored + held if counts.last_sequence not in hidden]

    def mark_folded_sent(self, counts: Sequence[FoldedCounts]) -> None:
        """The other side has these counts."""
        writer = self._writer
        with writer.lock:
            reported = {count.last_sequence for count in counts}
            writer.waiting.folded = [held for held in writer.waiting.folded if held.last_sequence not in reported]
            writer.mark([], sorted(reported))

    def gaps(self) -> list[Gap]:
        """The gaps in the sequence since the spool was made, oldest first."""
        with self._writer.lock:
            fresh = list(self._writer.numbering.gaps)
        nothing: list[Gap] = []
        stored = self._read(rows.gaps, nothing)
        known = {gap.first_sequence for gap in stored}
        return stored + [gap for gap in fresh if gap.first_sequence not in known]

    def figures(self) -> SpoolFigures:
        """How the spool does; asks the database."""
        nothing: Counter[str] = Counter()
        evicted = self._read(rows.counters, nothing)
        gaps = self.gaps()
        age = self._oldest_age_s()
        with self._writer.lock:
            evicted = evicted + self._writer.waiting.dropped
            return SpoolFigures(
                oldest_age_s=age,
                evicted=dict(evicted),
                folded=evicted["pass"],
                gaps=len(gaps),
                lost=sum(gap.lost for gap in gaps),
                **self._in_memory(),
            )

    def refreshed(self, figures: SpoolFigures) -> SpoolFigures:
        """Earlier figures, with all that memory knows as it is now; never waits for the disk.

        Counters, gaps and age stay as they were: what moves from memory to the database is then missing in no total.
        """
        with self._writer.lock:
            return replace(figures, **self._in_memory())

    def upload_backlog(self) -> int:
        """How many images the store has not confirmed; never waits for the disk."""
        with self._writer.lock:
            return int(self._in_memory()["upload_backlog"])

    def _in_memory(self) -> dict[str, Any]:
        """The figures that need no database, by their names; under the lock."""
        writer = self._writer
        held = list(writer.waiting.entries.values())
        reason = writer.refusal()
        unsent, images, size = writer.totals
        return {
            "state": "ok" if reason is None else "memory",
            "reason": reason,
            "notice": writer.opener.notice or (FORGOT if writer.forgot else None),
            "queue_length": max(0, unsent - len(writer.marks)) + sum(not (e.sent or e.stored) for e in held),
            "in_memory": sum(not entry.stored for entry in held),
            "bytes": size,
            "quota_bytes": self._settings.quota_bytes,
            "upload_backlog": images + sum(entry.image is not None for entry in held),
            "next_sequence": writer.numbering.next,
            "duplicates": writer.duplicates,
            "commits": writer.commits,
            "commit_ms": writer.commit_s * 1000,
            "newly_lost": writer.numbering.lost,
        }

    def flush(self, timeout_s: float) -> bool:
        """Have everything committed at once; False when the disk refuses or that takes longer."""
        writer = self._writer
        end = time.monotonic() + timeout_s
        with writer.lock:
            writer.commit_now()
            while writer.waiting.entries or writer.marks or writer.folded_marks or writer.additions:
                left = end - time.monotonic()
                if left <= 0 or writer.fault is not None or not writer.changed.wait(left):
                    return False
                if writer.fault is None:
                    writer.commit_now()
        return True

    def close(self, timeout_s: float = 10) -> bool:
        """Bring the rest to disk and let go of the folder; False when the disk did not take all of it in time."""
        with self._writer.lock:
            self._closed = True
        self._reader.close()  # first: the last connection to go folds SQLite's log into the database
        done = self._writer.stop(timeout_s)
        if not done:
            log.error("event=spool_closed_early in_memory=%d", len(self._writer.waiting.entries))
        return done

    def _ticket(self, entry: Entry) -> Ticket:
        writer = self._writer
        return Ticket(entry, writer.changed, writer.refusal, writer.commit_now)

    def _read(self, query: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """Ask the database; while it cannot be read the answer is `otherwise`, and the writer opens it anew."""
        try:
            return self._reader.ask(query, otherwise)
        except (OSError, sqlite3.Error) as error:
            if self._writer.fault is None:  # else it has been said
                log.error("event=spool_read_failed error=%r", error)
            self._writer.suspect(error)
            return otherwise

    def _oldest_age_s(self) -> float | None:
        oldest = [result for urgent in (True, False) for result in self._unsent.look(urgent, 1)[0]]
        with self._writer.lock:
            oldest += [entry.result for entry in self._writer.waiting.entries.values() if not entry.sent][:1]
            if not oldest:
                return None
            first = min(oldest, key=lambda result: result.sequence)
            return self._ages.age_s(first.sequence, time.monotonic(), self._wall_clock() - first.captured_at)


def _check_image(image: KeptImage) -> None:
    if re.fullmatch(r"\.[a-z0-9]{1,8}", image.suffix) is None or image.suffix == SENT_SUFFIX:
        raise SpoolError(f"image suffix: want one such as '.jpg', found {image.suffix!r}")
    try:
        json.dumps(dict(image.sidecar), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SpoolError(f"image sidecar: want JSON values: {error}") from None
