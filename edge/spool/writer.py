"""The thread that brings results to disk, so that a verdict never waits for it.

Commits are grouped: a pass is on disk within `durable_within_ms`, everything that was put meanwhile shares its sync.
A fail, review or error, and anything that somebody waits for, is committed at once.

When the disk refuses (full, read-only, broken, taken away), results stay in memory, the state says so, and the disk is
tried again with backoff, opening everything anew; when it takes writes again, it gets all that memory holds.
"""

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from edge.backoff import Backoff
from edge.errors import SpoolError
from edge.results import Result
from edge.spool.eviction import make_room, trim_settled
from edge.spool.handed import Handed
from edge.spool.images import confirmed_files
from edge.spool.numbering import Numbering
from edge.spool.opening import Opener
from edge.spool.records import Entry
from edge.spool.schema import is_damaged
from edge.spool.settings import SpoolSettings
from edge.spool.store import Batch, Store
from edge.spool.waiting import Waiting

GROUP = 500  # entries in one commit
MARKS_WITHIN_S = 5.0  # sent results are noted with the next commit, or after so long; losing a note costs a repeat
MANY_MARKS = 1000
HANGS_AFTER_S = 10.0  # a commit that takes longer is a fault to tell, though it may still succeed
TIDY_EVERY_S = 10.0  # images that the uploader has confirmed are removed
VACUUM_PAGES = 256  # given back to the file system at a time

log = logging.getLogger(__name__)


class Writer:
    """Owns the database's writing side; all else of the spool talks to it under one lock.

    Args:
        folder: of the spool.
        settings: checked.
        wall_clock: unix seconds.
        remembers_all: keep the source keys of results that are forgotten.

    Raises:
        SpoolError: the folder is in use, or of another major version. A disk that refuses is no error: see `fault`.
    """

    def __init__(
        self,
        folder: Path,
        settings: SpoolSettings,
        wall_clock: Callable[[], float] = time.time,
        remembers_all: bool = False,
    ) -> None:
        self._settings = settings
        self._remembers_all = remembers_all
        self.lock = threading.Lock()
        self.work = threading.Condition(self.lock)  # the writer waits for something to do
        self.changed = threading.Condition(self.lock)  # others wait for something to be durable
        self.marks: set[int] = set()  # sent, not yet noted on disk
        self.handed = Handed(self.lock, self.marks)
        self.waiting = Waiting(settings.memory_bytes, self.handed)
        self.numbering = Numbering(folder, wall_clock)
        self.folded_marks: set[int] = set()  # last sequences of folded counts that were reported
        self.additions: dict[int, dict[str, Any]] = {}  # to sidecars of images, by sequence
        self.fault: str | None = None  # why the disk refuses
        self.opener = Opener(folder, wall_clock)
        self.forgot = False  # source keys that should be remembered
        self.duplicates = 0
        self.commits = 0
        self.commit_s = 0.0  # moving average
        self.store: Store | None = None
        self.totals = (0, 0, 0)  # unsent rows, images, bytes; as of the last commit
        self.on_committed: Callable[[], None] | None = None
        self.hurry = False
        self._marked_s: float | None = None  # when the first of the marks came
        self._suspect: Exception | None = None  # what a reader met
        self._evicting = False
        self._unchecked = False
        self._tidy_s = time.monotonic() + TIDY_EVERY_S
        self._backoff = Backoff(settings.retry_min_s, settings.retry_max_s)
        self._replaced = False  # a damaged database was replaced, and the disk has not yet taken results since
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)
        try:
            self._open()
        except (OSError, sqlite3.Error) as error:
            self._refuse(error)
            self.numbering.start_without_disk()
        except BaseException:
            self.opener.close()
            raise
        self._thread.start()

    def refusal(self) -> str | None:
        """Why results do not get to disk at the moment: it refuses them, or it hangs; None when they do."""
        if self.fault is not None:
            return self.fault
        first = next(iter(self.waiting.entries.values()), None)
        waited_s = 0.0 if first is None else time.monotonic() - first.put_s
        if waited_s < HANGS_AFTER_S + self._settings.durable_within_ms / 1000:
            return None
        return f"the disk has taken nothing for {waited_s:.0f} s"

    def mark(self, sequences: list[int], folded: list[int]) -> None:
        """Note what was sent; under the lock."""
        self.marks.update(sequences)
        self.folded_marks.update(folded)
        if self._marked_s is None:
            self._marked_s = time.monotonic()
            self.work.notify()
        elif len(self.marks) >= MANY_MARKS:
            self.work.notify()

    def suspect(self, error: Exception) -> None:
        """A reader met an error: have the database opened anew."""
        with self.lock:
            if self.fault is None:
                self._suspect = error
                self.work.notify()

    def commit_now(self) -> None:
        """Commit what there is without waiting for more; under the lock."""
        self.hurry = True
        self.work.notify()

    def stop(self, timeout_s: float) -> bool:
        """Bring the rest to disk, if it takes it, and end; False when that took too long or the disk refuses."""
        with self.lock:
            self._stopping = True
            self.work.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and not self.waiting.entries

    def _run(self) -> None:
        while True:
            with self.lock:
                while (delay := self._due_in()) is None or delay > 0:
                    self.work.wait(delay)
                hurried, self.hurry = self.hurry, False
                last = self._stopping
            if self.fault is not None and not self._retry():
                if hurried or last:
                    with self.lock:
                        self.changed.notify_all()
                if last:
                    break
                continue
            self._round()
            with self.lock:
                left = self.waiting.entries or self.marks or self.folded_marks or self.additions or self._evicting
            if last and (not left or self.fault is not None):
                break
        self._end()

    def _due_in(self) -> float | None:
        """Seconds until there is something to do; None: nothing. Under the lock."""
        if self._stopping or self._suspect is not None:
            return 0.0
        if self.fault is not None:
            return self._backoff.remaining_s() if not self.hurry else 0.0
        if self._evicting or len(self.marks) >= MANY_MARKS or self._unchecked or self.numbering.runs_low():
            return 0.0
        now = time.monotonic()
        due: list[float] = []
        first = next(iter(self.waiting.entries.values()), None)
        if first is not None:
            if self.hurry or self.waiting.urgent:
                return 0.0
            due.append(first.put_s + self._settings.durable_within_ms / 1000 - self.commit_s - now)
        if self.additions:
            return 0.0
        if self._marked_s is not None:
            if self.hurry:
                return 0.0
            due.append(self._marked_s + MARKS_WITHIN_S - now)
        if self.totals[1]:
            due.append(self._tidy_s - now)
        self.hurry = False
        return max(0.0, min(due)) if due else None

    def _round(self) -> None:
        """Bring one group to disk, and keep the quota."""
        with self.lock:
            entries = list(islice(self.waiting.entries.values(), GROUP))
            for entry in entries:
                entry.taken = True
            self.waiting.urgent = False
            batch = Batch(
                entries=[entry for entry in entries if not entry.stored],
                sent=sorted(self.marks),
                folded=self.waiting.folded,
                folded_sent=sorted(self.folded_marks),
                gaps=list(self.numbering.gaps),
                counts=Counter(self.waiting.dropped),
                additions=dict(self.additions),
            )
            self.waiting.folded = []
            lowest = self.waiting.lowest(self.numbering.next)
            suspect, self._suspect = self._suspect, None
        known: dict[int, Result] | None = None
        try:
            if suspect is not None:
                raise suspect
            store = self._ready(lowest)
            refused = self._write_images(store, entries, batch)
            started = time.monotonic()
            batch.confirmed = self._confirmed(store)
            if batch != Batch():
                known = store.commit(batch)
                self.commits += 1
                self.commit_s += 0.2 * (time.monotonic() - started - self.commit_s)
            self._settle(entries, batch, known or {})
            if refused is not None:
                raise refused
            self._keep_quota(store)
            self._recover()
        except (OSError, sqlite3.Error, SpoolError) as error:
            self._give_back(batch, known)
            self._refuse(error)
        except Exception as error:  # a fault nobody thought of must not silently end the writing of results
            log.exception("event=spool_writer_fault")
            self._give_back(batch, known)
            self._refuse(error)
        finally:
            with self.lock:
                for entry in entries:
                    entry.taken = False

    def _ready(self, lowest: int) -> Store:
        assert self.store is not None
        if self._unchecked:
            self._unchecked = False
            self.store.check_content()
        if self.numbering.runs_low():
            self.numbering.reserve(lowest)
        self.numbering.note_given()
        return self.store

    def _confirmed(self, store: Store) -> list[int]:
        """Images that the uploader is done with, looked for now and then."""
        if time.monotonic() < self._tidy_s or not store.image_count:
            return []
        self._tidy_s = time.monotonic() + TIDY_EVERY_S
        return confirmed_files(store.images)

    def _write_images(self, store: Store, entries: list[Entry], batch: Batch) -> OSError | None:
        """Write image files; a disk that refuses them may still take the results, so its error is kept for later."""
        for entry in entries:
            if entry.image is None:
                continue
            try:
                store.write_image(entry)
            except OSError as error:
                return error
            batch.images.append(entry)
        return None

    def _settle(self, entries: list[Entry], batch: Batch, known: dict[int, Result]) -> None:
        """Tell everybody what is on disk now."""
        written = {entry.result.sequence for entry in batch.images}
        with self.lock:
            for entry in entries:
                sequence = entry.result.sequence
                if not entry.stored:
                    self.waiting.forget_key(entry)
                    entry.stored = True
                stored = known.get(sequence)
                if entry.image is None or sequence in written or stored is not None:
                    self.waiting.remove(entry)
                if stored is not None:
                    self.duplicates += 1
                    entry.result = stored
                entry.durable = True
            self.marks.difference_update(batch.sent)
            self.folded_marks.difference_update(batch.folded_sent)
            for sequence in batch.additions:
                self.additions.pop(sequence, None)
            self._marked_s = time.monotonic() if self.marks or self.folded_marks else None
            self.waiting.dropped -= batch.counts
            del self.numbering.gaps[: len(batch.gaps)]
            self._take_totals()
            self.changed.notify_all()
        if entries and self.on_committed is not None:
            self.on_committed()

    def _recover(self) -> None:
        if self.fault is not None:
            self._backoff.succeed()
            self._replaced = False
            log.warning("event=spool_disk_back after=%s", self.fault)
            with self.lock:
                self.fault = None
                self.changed.notify_all()

    def _give_back(self, batch: Batch, known: dict[int, Result] | None) -> None:
        """Nothing of the batch reached the disk: folded counts were taken out of memory and go back."""
        if known is None:
            with self.lock:
                self.waiting.folded = batch.folded + self.waiting.folded

    def _keep_quota(self, store: Store) -> None:
        trim_settled(store, self._settings.keep_sent, self._remembers_all)
        quota = self._settings.quota_bytes
        used = store.used_bytes()
        self._evicting = used > (quota - quota // 16 if self._evicting else quota)
        if self._evicting:
            gone = confirmed_files(store.images)
            if gone:
                store.commit(Batch(confirmed=gone))
            elif not make_room(store, self.handed, self._remembers_all):
                self._evicting = False
        elif store.file_bytes() > quota:
            store.shrink(VACUUM_PAGES)
        with self.lock:
            self._take_totals()

    def _take_totals(self) -> None:
        if self.store is not None:
            self.forgot = self.forgot or (self.store.forgot and self._remembers_all)
            self.totals = (self.store.unsent, self.store.image_count, self.store.file_bytes())

    def _refuse(self, error: Exception) -> None:
        """The disk does not take it: results stay in memory until it does."""
        store, self.store = self.store, None
        self.numbering.let_go()
        if store is not None:
            self.opener.let_go(store, error)
        if is_damaged(error) and not self._replaced:
            self._replaced = True  # without waiting, but not again and again
        else:
            self._backoff.fail()
        self._set_fault(error)

    def _set_fault(self, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        with self.lock:
            if self.fault != reason:
                log.error("event=spool_memory reason=%s in_memory=%d", reason, len(self.waiting.entries))
            self.fault = reason
            self.changed.notify_all()

    def _retry(self) -> bool:
        """Open everything anew; whether the disk takes results again shows in the round that follows."""
        try:
            self._open()
        except (OSError, sqlite3.Error, SpoolError) as error:
            self._backoff.fail()
            self._set_fault(error)
            return False
        except Exception as error:  # as in _round
            log.exception("event=spool_writer_fault")
            self._backoff.fail()
            self._set_fault(error)
            return False
        return True

    def _open(self) -> None:
        store = self.opener.open()
        try:
            highest = store.highest()
            with self.lock:
                first = not self.numbering.opened
                self.numbering.find_start(highest)
                gaps = list(self.numbering.gaps)
            if gaps:
                store.commit(Batch(gaps=gaps))
            with self.lock:
                del self.numbering.gaps[: len(gaps)]
                lowest = self.waiting.lowest(self.numbering.next)
            self.numbering.reserve(lowest)
        except BaseException:
            store.close()
            raise
        self._unchecked = first and self.numbering.unclean
        self.store = store
        with self.lock:
            self._take_totals()

    def _end(self) -> None:
        """Leave the folder so that the next start goes on without a gap, if all is on disk."""
        try:
            if self.store is not None:
                if not self.waiting.entries and not self.waiting.reserved:
                    self.numbering.close()
                self.store.close()
        except (OSError, sqlite3.Error) as error:
            log.error("event=spool_close_failed error=%r", error)
        self.store = None
        self.numbering.let_go()
        self.opener.close()
