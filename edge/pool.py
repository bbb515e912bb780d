"""Judges parts on several threads; every part gets exactly one verdict, in the order of the parts, by its deadline.

Decoding and the model run outside Python's lock, so threads are enough for all cores. Whoever completes the part that
is next in order (a worker, or the watchdog when a deadline passes) also tells it and those that waited behind it.

One lock guards all that changes. A part is in `_todo` until a worker takes it or its deadline passes, and in `_order`
until the line was told; its judgement is set once. A verdict that is not told by its deadline becomes an error: the
last look at the clock is right before the telling.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from edge.in_hand import InHand
from edge.judge import Judgement, failed, judge_part
from edge.part import Part
from edge.preprocess import MAX_PIXELS
from edge.served import Served

_log = logging.getLogger(__name__)

PartCheck = Callable[[Part, np.ndarray], str | None]
"""Why the part's pixels, uint8 (1, H, W, 3), are no new picture (a stuck camera), or None."""

_LOOK_S = 1.0  # the watchdog looks at least that often, for workers that hang and to show that it lives
_PAUSE_S = 0.01  # of the watchdog after a fault of its own
_STUCK_S = 30.0  # a worker that is on one part for so long gets a substitute
_MAX_SUBSTITUTES = 4  # a machine that hangs this often is broken: its parts get errors
_DEAD_S = 5.0  # without a look of the watchdog, or with a part that long overdue, nobody sees to the deadlines


class Slot:
    """One part on its way to its verdict."""

    __slots__ = ("begun_s", "deadline_s", "judgement", "max_pixels", "part", "served", "tag")

    def __init__(self, part: Part, deadline_s: float, tag: Any = None, max_pixels: int = MAX_PIXELS) -> None:
        self.part = part
        self.deadline_s = deadline_s  # time.monotonic() by which the verdict must be given
        self.tag = tag  # the submitter's own
        self.max_pixels = max_pixels  # a file with a larger picture is not decoded
        self.begun_s: float | None = None  # None: no worker has begun
        self.judgement: Judgement | None = None  # set under the pool's lock
        self.served: Served | None = None  # what judged it


class JudgePool:
    """Worker threads and a watchdog for deadlines."""

    def __init__(
        self,
        current: Callable[[], Served | None],
        tell: Callable[[Slot], None],
        workers: int = 1,
        check: PartCheck | None = None,
        on_fault: Callable[[str, Exception], None] | None = None,
        in_hand: InHand | None = None,
    ) -> None:
        """Start the threads.

        Args:
            current: the package that serves now.
            tell: takes each part with its verdict, one at a time, in order, on any thread of the pool. Must be quick:
                the parts behind wait for it.
            workers: parts that are judged at the same time.
            check: says why a picture is no new one.
            on_fault: called with faults of the pool itself, and where.
            in_hand: where to note parts that come again when the process ends; None: no part does.
        """
        self._current = current
        self._tell = tell
        self._check = check
        self._on_fault = on_fault
        self._in_hand = in_hand
        self._lock = threading.Lock()
        self._there = threading.Condition(self._lock)  # a part waits for a worker, or there will be no more
        self._room = threading.Condition(self._lock)  # the line was told of a part
        self._alarm = threading.Condition(self._lock)  # the watchdog must look sooner than it meant to
        self._alarm_at_s = 0.0  # when it means to look
        self._looked_s = time.monotonic()  # when it looked last
        self._order: deque[Slot] = deque()  # parts that the line was not told of
        self._todo: deque[Slot] = deque()  # those of them that no worker has taken and that have no verdict
        self._telling = False
        self._closed = False
        self._busy: dict[int, Slot] = {}  # worker number: the part it is on
        self._lost: set[int] = set()  # workers that were given up
        self._numbers = workers
        self.capacity = 2 * workers  # parts in hand, so that no worker waits for the next part
        self.late = 0  # verdicts that came after their deadline and were discarded
        self._threads = [self._start_worker(number) for number in range(workers)]
        self._watchdog = threading.Thread(target=self._watch, name="deadline", daemon=True)
        self._watchdog.start()

    @property
    def in_hand(self) -> int:
        """Parts that the line was not told of."""
        return len(self._order)

    @property
    def substitutes(self) -> int:
        """Workers that got stuck on a part and were replaced."""
        return len(self._lost)

    @property
    def keeps_time(self) -> bool:
        """Whether parts get their verdicts by the deadline: the watchdog looks, and no part is long overdue."""
        now_s = time.monotonic()
        with self._lock:
            overdue = bool(self._order) and now_s - self._order[0].deadline_s > _DEAD_S
            return self._watchdog.is_alive() and now_s - self._looked_s < _DEAD_S and not overdue

    def submit(self, part: Part, deadline_s: float, tag: Any = None, max_pixels: int = MAX_PIXELS) -> None:
        """Take a part; returns at once."""
        slot = Slot(part, deadline_s, tag, max_pixels)
        with self._lock:
            for earlier in reversed(self._order):
                if earlier.deadline_s <= deadline_s:
                    break
                earlier.deadline_s = deadline_s  # deadlines became shorter: in order, it must not hold this one up
            self._order.append(slot)
            self._todo.append(slot)
            self._there.notify()
            if deadline_s < self._alarm_at_s:
                self._alarm.notify()

    def wait_for_room(self, timeout_s: float) -> bool:
        """True when another part may be submitted."""
        with self._lock:
            return self._room.wait_for(lambda: len(self._order) < self.capacity, timeout_s)

    def drain(self, timeout_s: float) -> bool:
        """Wait until the line was told of every part; their deadlines see to it."""
        with self._lock:
            return self._room.wait_for(lambda: not self._order and not self._telling, timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop the threads; a worker that hangs is left behind."""
        with self._lock:
            self._closed = True
            self._alarm.notify()
            self._there.notify_all()
        end_s = time.monotonic() + timeout_s
        for thread in (*self._threads, self._watchdog):
            thread.join(max(0.0, end_s - time.monotonic()))

    def _start_worker(self, number: int) -> threading.Thread:
        thread = threading.Thread(target=self._work, args=(number,), name=f"judge-{number}", daemon=True)
        thread.start()
        return thread

    def _work(self, number: int) -> None:
        while self._judge_next(number):
            pass

    def _judge_next(self, number: int) -> bool:
        """Wait for a part and judge it; False when this worker is to end."""
        with self._lock:
            self._there.wait_for(lambda: self._todo or self._closed or number in self._lost)
            if number in self._lost or not self._todo:
                return False
            slot = self._busy[number] = self._todo.popleft()
            slot.begun_s = time.monotonic()
        judgement, served = self._judge(slot, number)
        if self._in_hand is not None:
            self._in_hand.end(number)
        self._complete(slot, judgement, served)
        with self._lock:
            del self._busy[number]
        return True

    def _judge(self, slot: Slot, number: int) -> tuple[Judgement, Served | None]:
        part, served = slot.part, self._current()
        try:
            if part.fault is not None:
                return failed(*part.fault), served
            if served is None:
                return failed("model", f"{part.name}: no good model package is here; see the health message"), None
            try:
                refused = self._begin(slot, number)
            except TimeoutError as error:
                return _overdue(slot, time.monotonic(), str(error)), served
            if refused is not None:
                return failed("poison", f"{part.name}: {refused}"), served
            check = self._check
            frame_check = None if check is None else lambda pixels: check(part, pixels)
            detector = served.detector(number)
            return judge_part(part, served.contract, detector, frame_check, slot.max_pixels), served
        except Exception as error:  # noqa: BLE001  whatever one part does to the judge, the next one is judged
            _log.exception("event=judge_failed part=%r", part.name)
            return failed("internal", f"{part.name}: {type(error).__name__}: {error}"), served

    def _begin(self, slot: Slot, number: int) -> str | None:
        """Note that the part is in hand; why it must not be judged, or None.

        Raises:
            TimeoutError: its deadline came before its turn.
        """
        if self._in_hand is None:
            return None
        return self._in_hand.begin(number, slot.part.source_key, slot.deadline_s)

    def _complete(self, slot: Slot, judgement: Judgement, served: Served | None) -> None:
        """Give a part its verdict unless it has one, and tell what is next in order."""
        with self._lock:
            if slot.judgement is not None:
                self.late += 1
                return
            slot.judgement, slot.served = judgement, served
            if slot.begun_s is None:
                self._todo.remove(slot)  # nobody shall take it, and its pixels need no memory any more
            if self._telling:  # another thread does, which will find this one
                return
            self._telling = True
        while (ready := self._next_to_tell()) is not None:
            try:
                self._tell(ready)
            except Exception as error:  # noqa: BLE001  the parts behind it must be told, too
                self._count_fault("tell", error)
            with self._lock:
                self._order.popleft()
                self._room.notify_all()

    def _next_to_tell(self) -> Slot | None:
        """The part whose verdict is next, as the clock allows it; None: it has none yet, and nobody tells any more."""
        with self._lock:
            slot = self._order[0] if self._order else None
            if slot is None or slot.judgement is None:
                self._telling = False
                self._room.notify_all()
                return None
            now_s = time.monotonic()
            if now_s >= slot.deadline_s and slot.judgement.verdict != "error":
                self.late += 1
                slot.judgement = _overdue(slot, now_s, "the line was still being told of the part before")
            return slot

    def _watch(self) -> None:
        while not self._closed:
            try:
                self._look()
            except Exception as error:  # noqa: BLE001  without it no part would have a deadline
                self._count_fault("watchdog", error)
                time.sleep(_PAUSE_S)

    def _look(self) -> None:
        """Give the verdict of parts whose deadline has come, or wait for the next; replace workers that hang."""
        with self._lock:
            now_s = self._looked_s = time.monotonic()
            due = [slot for slot in self._order if slot.judgement is None and slot.deadline_s <= now_s]
            stuck = [
                (number, slot)
                for number, slot in self._busy.items()
                if number not in self._lost and slot.begun_s is not None and now_s - slot.begun_s > _STUCK_S
            ]
            if not due and not stuck:
                self._wait(now_s)
                return
        for slot in due:
            where = "no worker was free" if slot.begun_s is None else "the judge was still at work"
            self._complete(slot, _overdue(slot, now_s, where), self._current())
        for number, slot in stuck[: _MAX_SUBSTITUTES - len(self._lost)]:
            self._replace(number, slot)
        if not due:
            with self._lock:
                self._wait(now_s)

    def _replace(self, number: int, slot: Slot) -> None:
        """Start a worker for one that hangs; when the machine has no room for a thread, the next look tries again."""
        try:
            self._threads.append(self._start_worker(self._numbers))
        except RuntimeError as error:
            self._count_fault("substitute", error)
            return
        _log.error("event=judge_stuck part=%r seconds=%.0f", slot.part.name, time.monotonic() - (slot.begun_s or 0.0))
        self._numbers += 1
        self._lost.add(number)

    def _wait(self, now_s: float) -> None:
        """Until the next deadline, under the lock."""
        deadlines = (slot.deadline_s for slot in self._order if slot.judgement is None)
        self._alarm_at_s = min(min(deadlines, default=now_s + _LOOK_S), now_s + _LOOK_S)
        if not self._closed:
            self._alarm.wait(max(0.0, self._alarm_at_s - time.monotonic()))

    def _count_fault(self, place: str, error: Exception) -> None:
        if self._on_fault is not None:
            self._on_fault(place, error)


def _overdue(slot: Slot, now_s: float, why: str) -> Judgement:
    waited_ms = (now_s - slot.part.started_s) * 1e3
    return failed("deadline", f"{slot.part.name}: no verdict after {waited_ms:.0f} ms: {why}")
