"""Finds the files that wait in a folder, on a thread of its own: a network share may take minutes to answer.

Two ways lead to the same queue. The kernel's reports (inotify) tell of a file the moment its writer closes it. Looking
at the whole folder in intervals finds what was there before, and what other machines put on a share; such a file is
taken when its size and time have stayed the same for `settle_ms`.
"""

from __future__ import annotations

import heapq
import logging
import os
import threading
import time
from dataclasses import dataclass

from edge.errors import SourceError
from edge.sources.listing import Candidate, is_wanted, list_folder, look_at
from edge.sources.settings import FolderSettings
from edge.sources.watching import Changes, FolderWatch, Waker, wait_for

log = logging.getLogger(__name__)

BATCH = 8192  # files in memory at once; the others stay in the folder until there is room
_HUNGRY = BATCH // 4
_LOOKING_SHARE = 0.1  # of the time, at most, is spent on looking
_REFILL_PAUSE_S = 0.02  # between two looks while the queue runs low, at least
_WRITING_EXPIRES_S = 60.0  # a file written to and not closed for so long: its writer is not on this machine any more
_MAX_POSTPONED = 10_000


@dataclass(frozen=True)
class LookoutState:
    """How the lookout does."""

    error: str  # why the folder cannot be looked at; empty: it can
    watching: bool  # the kernel reports on the folder
    waiting: int  # files in the queue
    more: bool  # and others beside them
    settling: int  # files that may still grow
    ignored: int  # files of other kinds at the last look
    unreadable: int  # entries that could not be looked at, likewise


class Lookout:
    """The queue of waiting files, oldest first, and the thread that fills it."""

    def __init__(self, folder: bytes, settings: FolderSettings, skip: frozenset[bytes]) -> None:
        self._folder, self._settings, self._skip = folder, settings, skip
        self._changed = threading.Condition()
        self._waiting: list[Candidate] = []  # a heap
        self._in_hand: set[int] = set()  # marks of files that the loop has
        self._taken: set[int] = set()  # marks of files waiting, in hand, and done but kept
        self._postponed: dict[int, float] = {}  # mark: when it may be taken again
        self._settling: dict[bytes, tuple[Candidate, float]] = {}  # since when it is as it is
        self._writing: dict[bytes, float] = {}  # when the last write was reported
        self._more = False
        self._exhausted = False
        self._error = ""
        self._ignored = self._unreadable = 0
        self._watch: FolderWatch | None = None
        self._watch_refused = ""
        self._next_look_s = 0.0
        self._refill_s = 0.0
        self._closing = False
        self._waker = Waker()
        self._thread = threading.Thread(target=self._run, name="folder-lookout", daemon=True)
        self._thread.start()

    def take(self, timeout_s: float) -> Candidate | None:
        """The oldest waiting file, or None when there is none within the timeout."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended(), timeout_s)
            if not self._waiting:
                return None
            candidate = heapq.heappop(self._waiting)
            self._in_hand.add(candidate.mark)
            hungry = self._more and len(self._waiting) < _HUNGRY
        if hungry:
            self._waker.wake()
        return candidate

    def keep(self, candidate: Candidate) -> None:
        """The file is done and stays where it is."""
        with self._changed:
            self._in_hand.discard(candidate.mark)

    def forget(self, candidate: Candidate) -> None:
        """The file is gone, or another one now."""
        with self._changed:
            self._in_hand.discard(candidate.mark)
            self._taken.discard(candidate.mark)

    def postpone(self, candidate: Candidate, delay_s: float) -> None:
        """Offer the file again later."""
        with self._changed:
            self._in_hand.discard(candidate.mark)
            if len(self._postponed) < _MAX_POSTPONED:
                self._postponed[candidate.mark] = time.monotonic() + delay_s
        self._waker.wake()

    def finished(self) -> bool:
        """Whether the folder is to be read once and has no more files."""
        with self._changed:
            return self._ended() and not self._waiting

    def state(self) -> LookoutState:
        """How it does now."""
        with self._changed:
            died = not self._closing and not self._thread.is_alive()
            return LookoutState(
                "the thread that looks at the folder ended; start the inspector again" if died else self._error,
                self._watch is not None,
                len(self._waiting),
                self._more,
                len(self._settling) + len(self._writing),
                self._ignored,
                self._unreadable,
            )

    def close(self) -> None:
        """End the thread. One that a dead network share holds is left to itself."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._waker.wake()
        self._thread.join(5)
        if not self._thread.is_alive():
            self._waker.close()

    def _ended(self) -> bool:
        return self._closing or (self._settings.once and self._exhausted)

    def _runs_low(self) -> bool:
        """Whether there is room for files that are known to be there."""
        return self._more and len(self._waiting) + len(self._settling) < _HUNGRY

    def _run(self) -> None:
        while not self._closing:
            self._set_watch()
            now = time.monotonic()
            if now >= self._next_look_s or (self._runs_low() and now >= self._refill_s):
                self._look()
            self._settle()
            changes = wait_for(self._watch, self._waker, self._pause_s())
            self._apply(changes)
        if self._watch is not None:
            self._watch.close()

    def _set_watch(self) -> None:
        if self._watch is not None or not self._settings.watch:
            return
        try:
            self._watch = FolderWatch(self._folder)
        except SourceError as error:
            if str(error) != self._watch_refused:  # not a line at each try
                self._watch_refused = str(error)
                log.warning("event=folder_not_watched reason=%s", error)
            return
        self._watch_refused = ""
        self._next_look_s = 0.0  # what came before the watch began is not reported

    def _look(self) -> None:
        started = time.monotonic()
        self._allow_again(started)
        room = BATCH - len(self._waiting)
        try:
            listing = list_folder(self._folder, self._settings, self._taken, room, self._skip)
        except OSError as error:
            self._fail(error)
            self._exhausted = True  # counts only for a folder that is read once: nothing more will come
            return
        for name in [name for name, since in self._writing.items() if started - since > _WRITING_EXPIRES_S]:
            del self._writing[name]
        before, self._settling = self._settling, {}
        for candidate in listing.candidates:
            if candidate.name not in self._writing:
                seen = before.get(candidate.name)
                same = seen is not None and seen[0] == candidate and seen[0].size == candidate.size
                self._settling[candidate.name] = seen if same and seen is not None else (candidate, started)
        with self._changed:
            held = self._in_hand | {candidate.mark for candidate in self._waiting} | self._postponed.keys()
            self._taken = {mark for mark in self._taken if mark in listing.still_there or mark in held}
            self._more, self._ignored = listing.more, listing.ignored
            if listing.unreadable and not self._unreadable:
                log.warning(
                    "event=entries_unreadable folder=%r entries=%d", os.fsdecode(self._folder), listing.unreadable
                )
            self._unreadable = listing.unreadable
            self._exhausted = not (listing.candidates or listing.more or self._postponed)
            if self._error:
                log.info("event=folder_back folder=%r", os.fsdecode(self._folder))
            self._error = ""
            self._changed.notify_all()
        took = time.monotonic() - started
        self._next_look_s = started + took + max(self._settings.interval_s, took / _LOOKING_SHARE)
        self._refill_s = started + took + max(_REFILL_PAUSE_S, took)

    def _fail(self, error: OSError) -> None:
        message = f"{os.fsdecode(self._folder)!r}: cannot look into this folder: {error.strerror}"
        with self._changed:
            if not self._error:
                log.warning("event=folder_lost reason=%s", message)
            self._error = message
            self._changed.notify_all()
        self._next_look_s = time.monotonic() + self._settings.interval_s

    def _allow_again(self, now: float) -> None:
        with self._changed:
            for mark in [mark for mark, due in self._postponed.items() if due <= now]:
                del self._postponed[mark]
                self._taken.discard(mark)

    def _settle(self) -> None:
        """Take the files that have stayed the same for long enough."""
        now = time.monotonic()
        for name, (candidate, since) in list(self._settling.items()):
            if now - since < self._settle_s(candidate):
                continue
            try:
                current = look_at(self._folder, name)
            except OSError:  # the next look says whether it is this file or the whole folder
                current = None
            if current is None:
                del self._settling[name]
            elif current.mark == candidate.mark:
                del self._settling[name]
                self._offer(candidate)
                if self._settings.once and not self._settling:
                    self._next_look_s = 0.0  # to know soon whether that was all
            else:
                self._settling[name] = (current, now)

    def _settle_s(self, candidate: Candidate) -> float:
        empty = candidate.size == 0 and not candidate.is_link
        return (self._settings.empty_after_ms if empty else self._settings.settle_ms) / 1000

    def _offer(self, candidate: Candidate) -> None:
        with self._changed:
            if candidate.mark not in self._taken:
                self._taken.add(candidate.mark)
                heapq.heappush(self._waiting, candidate)
                self._changed.notify_all()

    def _pause_s(self) -> float:
        until = [self._next_look_s]
        until += [since + self._settle_s(candidate) for candidate, since in self._settling.values()]
        with self._changed:
            until += self._postponed.values()
            if self._postponed:
                self._next_look_s = min(self._next_look_s, *self._postponed.values())
        if self._runs_low():
            until.append(self._refill_s)
        return max(0.0, min(until) - time.monotonic())

    def _apply(self, changes: Changes) -> None:
        """Take up what the kernel reported."""
        if changes.gone and self._watch is not None:
            self._watch.close()
            self._watch = None
        now = time.monotonic()
        for name in changes.modified:
            if is_wanted(name, self._settings):
                self._writing[name] = now
                self._settling.pop(name, None)
        if changes.lost or changes.gone:
            self._writing.clear()  # who closed his file may be among what was lost
            self._next_look_s = 0.0
        for name in changes.complete:
            self._writing.pop(name, None)
            if self._more or not is_wanted(name, self._settings):
                continue  # older files come first: looking finds this one in its turn
            self._settling.pop(name, None)
            try:
                candidate = look_at(self._folder, name)
            except OSError:  # the next look says whether it is this file or the whole folder
                self._next_look_s = 0.0
                continue
            if candidate is None:
                continue
            if candidate.size and not candidate.is_link and len(self._waiting) < BATCH:
                self._offer(candidate)
            else:
                self._next_look_s = 0.0
