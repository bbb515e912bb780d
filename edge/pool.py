"""Judges parts on several threads; every part gets exactly one verdict, in the order of the parts, by its deadline.

Decoding and the model run outside Python's lock, so threads are enough for all cores. Whoever completes the part that
is next in order (a worker, or the watchdog when a deadline passes) also delivers it and those that waited behind it.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np

from edge.judge import Judgement, failed, judge_part
from edge.part import Part
from edge.served import Served

_log = logging.getLogger(__name__)

PartCheck = Callable[[Part, np.ndarray], str | None]
"""Why the part's pixels, uint8 (1, H, W, 3), are no new picture (a stuck camera), or None."""

_IDLE_S = 3600.0  # how long the watchdog sleeps when no part is in hand
_STUCK_S = 30.0  # a worker that is on one part for so long gets a substitute
_MAX_SUBSTITUTES = 4  # a machine that hangs this often is broken: its parts get errors


class Slot:
    """One part on its way to its verdict."""

    __slots__ = ("begun_s", "deadline_s", "judgement", "part", "served", "tag")

    def __init__(self, part: Part, deadline_s: float, tag: Any = None) -> None:
        self.part = part
        self.deadline_s = deadline_s  # time.monotonic() by which the verdict must be given
        self.tag = tag  # the submitter's own
        self.begun_s: float | None = None  # None: no worker has begun
        self.judgement: Judgement | None = None  # set once, under the pool's lock
        self.served: Served | None = None  # what judged it


class JudgePool:
    """Worker threads and a watchdog for deadlines."""

    def __init__(
        self,
        current: Callable[[], Served | None],
        deliver: Callable[[Slot], None],
        workers: int = 1,
        check: PartCheck | None = None,
    ) -> None:
        """Start the threads.

        Args:
            current: the package that serves now.
            deliver: takes each part with its verdict, one at a time, in order, on any thread of the pool. Must not
                raise and must be quick.
            workers: parts that are judged at the same time.
            check: says why a picture is no new one.
        """
        self._current = current
        self._deliver = deliver
        self._check = check
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)  # a part has been delivered
        self._alarm = threading.Condition(self._lock)  # the watchdog must look sooner than it meant to
        self._alarm_at_s = 0.0  # when it means to look
        self._order: deque[Slot] = deque()  # parts without a delivered verdict
        self._delivering = False
        self._closed = False
        self._queue: SimpleQueue[Slot | None] = SimpleQueue()
        self._busy: dict[int, tuple[float, Slot]] = {}  # worker number: since when it is on which part
        self._lost: set[int] = set()  # workers that were given up
        self._numbers = workers
        self.capacity = 2 * workers  # parts in hand, so that no worker waits for the next part
        self.late = 0  # results that came after their deadline and were discarded
        self._threads = [self._start_worker(number) for number in range(workers)]
        self._watchdog = threading.Thread(target=self._watch, name="deadline", daemon=True)
        self._watchdog.start()

    @property
    def in_hand(self) -> int:
        """Parts without a delivered verdict."""
        return len(self._order)

    @property
    def substitutes(self) -> int:
        """Workers that got stuck on a part and were replaced."""
        return len(self._lost)

    def submit(self, part: Part, deadline_s: float, tag: Any = None) -> None:
        """Take a part; returns at once."""
        slot = Slot(part, deadline_s, tag)
        with self._lock:
            self._order.append(slot)
            if deadline_s < self._alarm_at_s:
                self._alarm.notify()
        self._queue.put(slot)

    def wait_for_room(self, timeout_s: float) -> bool:
        """True when another part may be submitted."""
        with self._lock:
            return self._room.wait_for(lambda: len(self._order) < self.capacity, timeout_s)

    def drain(self, timeout_s: float) -> bool:
        """Wait until every part has its verdict; their deadlines see to it."""
        with self._lock:
            return self._room.wait_for(lambda: not self._order and not self._delivering, timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop the threads; a worker that hangs is left behind."""
        with self._lock:
            self._closed = True
            self._alarm.notify()
        for _ in self._threads:
            self._queue.put(None)
        end_s = time.monotonic() + timeout_s
        for thread in (*self._threads, self._watchdog):
            thread.join(max(0.0, end_s - time.monotonic()))

    def _start_worker(self, number: int) -> threading.Thread:
        thread = threading.Thread(target=self._work, args=(number,), name=f"judge-{number}", daemon=True)
        thread.start()
        return thread

    def _work(self, number: int) -> None:
        while (slot := self._queue.get()) is not None:
            if slot.judgement is None:  # else its deadline passed while it waited
                slot.begun_s = time.monotonic()
                self._busy[number] = (slot.begun_s, slot)
                judgement, served = self._judge(slot.part, number)
                self._complete(slot, judgement, served)
                del self._busy[number]
            if number in self._lost:
                return

    def _judge(self, part: Part, number: int) -> tuple[Judgement, Served | None]:
        served = self._current()
        try:
            if part.fault is not None:
                return failed(*part.fault), served
            if served is None:
                return failed("model", f"{part.name}: no good model package is here; see the health message"), None
            check = self._check
            frame_check = None if check is None else lambda pixels: check(part, pixels)
            return judge_part(part, served.contract, served.detector(number), frame_check), served
        except Exception as error:  # noqa: BLE001  whatever one part does to the judge, the next one is judged
            _log.exception("event=judge_failed part=%r", part.name)
            return failed("internal", f"{part.name}: {type(error).__name__}: {error}"), served

    def _complete(self, slot: Slot, judgement: Judgement, served: Served | None) -> None:
        """Give a part its verdict unless it has one, and deliver what is next in order."""
        with self._lock:
            if slot.judgement is not None:
                self.late += 1
                return
            slot.judgement, slot.served = judgement, served
            if self._delivering:  # by another thread, which will find this one
                return
            self._delivering = True
        while True:
            with self._lock:
                if not self._order or self._order[0].judgement is None:
                    self._delivering = False
                    self._room.notify()
                    return
                ready = self._order[0]
            self._deliver(ready)
            with self._lock:
                self._order.popleft()
                self._room.notify()

    def _watch(self) -> None:
        """Give the verdict of parts whose deadline has come; replace workers that hang."""
        while True:
            with self._lock:
                if self._closed:
                    return
                now_s = time.monotonic()
                due = [slot for slot in self._order if slot.judgement is None and slot.deadline_s <= now_s]
                if not due:
                    open_until = [slot.deadline_s for slot in self._order if slot.judgement is None]
                    self._alarm_at_s = min(open_until, default=now_s + _IDLE_S)
                    self._alarm.wait(self._alarm_at_s - now_s)
                    continue
            for slot in due:
                waited_ms = (now_s - slot.part.started_s) * 1e3
                where = "no worker was free" if slot.begun_s is None else "the judge was still at work"
                reason = f"{slot.part.name}: no verdict after {waited_ms:.0f} ms: {where}"
                self._complete(slot, failed("deadline", reason), self._current())
            self._replace_stuck(now_s)

    def _replace_stuck(self, now_s: float) -> None:
        """Called after deadlines passed: a worker that hangs for long shows itself that way."""
        for number, (since_s, slot) in list(self._busy.items()):
            if now_s - since_s > _STUCK_S and number not in self._lost and len(self._lost) < _MAX_SUBSTITUTES:
                _log.error("event=judge_stuck part=%r seconds=%.0f", slot.part.name, now_s - since_s)
                self._lost.add(number)
                self._threads.append(self._start_worker(self._numbers))
                self._numbers += 1
