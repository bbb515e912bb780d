"""The loop: part in, verdict out, result kept, part acknowledged; faults are counted and the loop goes on.

Three kinds of threads meet here. The loop's own takes parts from the source, and acknowledges them once their results
are on the disk. The pool's judge and tell the line at once (`_tell`); the keeper's does what is slow after that and
hands the result to the spool (`_keep`). The spool's writer and the sender do the rest. Nothing on the way to a verdict
waits for disk or network; only the question whether a part was inspected before does, for a short time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edge.clock import Clock
from edge.conclusion import conclude
from edge.errors import ResultError
from edge.inspection import Counts, Limits, Pending, ResultStore
from edge.judge import failed
from edge.keeping import Keeper
from edge.lookup import Lookup
from edge.part import Part, Source
from edge.pool import JudgePool, Slot
from edge.results import Result, canonical_key
from edge.serving import Serving

if TYPE_CHECKING:
    from edge.in_hand import InHand
    from edge.line_output import Outputs
    from edge.review import ReviewPolicy, StuckCamera
    from edge.spool.images import KeptImage

_log = logging.getLogger(__name__)

_WAIT_S = 0.05  # for a part, while others wait to be acknowledged
_IDLE_S = 0.2  # for a part, when nothing waits
_MARGIN = 0.05  # of the deadline, and at most
_MARGIN_S = 0.005  # so much time is left for telling the line
_FIND_SHARE = 0.25  # of the deadline, and at most
_FIND_S = 0.25  # so long the spool may take to say whether a part was inspected before
_KEEP_S = 10.0  # at the end, for images and results of the last parts
_FAULT_WAIT_S = (0.1, 5.0)  # after a fault of the loop itself; doubles


class Inspector:
    """One source, one package at a time, one line.

    Args:
        source: where parts come from.
        serving: the package.
        store: the spool.
        outputs: tell the line.
        review: chooses the images to keep.
        stuck: notices a camera that repeats itself.
        thing: this device.
        line: of results; the package's when "".
        workers: pictures judged at the same time.
        limits: deadline and bound.
        on_result: called in the loop's thread with every new result, in order.
        on_judged: called in the keeper's thread, once the line and the spool have a part's result; with whether its
            image is kept. Must return at once.
        on_turn: called in the loop's thread, many times a second, with time.monotonic(); returns why the program
            must end, or None.
        stopping: set it, or call `stop`, to end after the parts in hand.
        in_hand: notes of the parts that are judged, for a source that keeps its parts.
    """

    def __init__(
        self,
        source: Source,
        serving: Serving,
        store: ResultStore,
        outputs: Outputs,
        review: ReviewPolicy,
        stuck: StuckCamera,
        thing: str,
        line: str = "",
        workers: int = 1,
        limits: Limits | None = None,
        on_result: Callable[[Pending, Result], None] | None = None,
        on_turn: Callable[[float], str | None] | None = None,
        on_judged: Callable[[Slot, Result, bool], None] | None = None,
        stopping: threading.Event | None = None,
        in_hand: InHand | None = None,
    ) -> None:
        self.counts = Counts()
        self.limits = limits or Limits()
        self.review = review
        self.stuck = stuck
        self._source = source
        self._serving = serving
        self._store = store
        self._outputs = outputs
        self._thing = thing
        self._line = line
        self._on_result = on_result
        self._on_turn = on_turn
        self._on_judged = on_judged
        self._clock = Clock()
        self._stopping = stopping or threading.Event()
        self._stuck_lock = threading.Lock()
        self._open: dict[str, Pending] = {}  # by source key, until acknowledged
        self._given: deque[Pending] = deque()  # the line was told; filled by the keeper
        self._waiting: deque[Pending] = deque()  # for the disk
        self._lookup = Lookup(store)
        self._keeper = Keeper(self._keep, None if source.keeps_parts else self._count_dropped_picture)
        self.pool = JudgePool(serving.current, self._tell, workers, self._check_stuck, self._count_fault, in_hand)

    @property
    def unacknowledged(self) -> int:
        """Parts between source and acknowledgement."""
        return len(self._open)

    def stop(self) -> None:
        """End after the parts in hand. May be called from a signal handler."""
        self._stopping.set()

    def run(self) -> str | None:
        """Inspect until the source is finished or `stop` is called.

        Returns:
            why it had to end (what `on_turn` said); None when it was told to, or the source is finished.
        """
        reason = None
        wait_s = _FAULT_WAIT_S[0]
        while not self._stopping.is_set():
            try:
                reason = self._on_turn(time.monotonic()) if self._on_turn is not None else None
                if reason is not None or self._turn():
                    break
                wait_s = _FAULT_WAIT_S[0]
            except Exception as error:  # noqa: BLE001  the one place that catches, counts and goes on
                self._count_fault("loop", error)
                self._stopping.wait(wait_s)
                wait_s = min(2 * wait_s, _FAULT_WAIT_S[1])
        self._finish()
        return reason

    def _turn(self) -> bool:
        """Acknowledge what is durable, take a part; True when there will be no more."""
        self._collect()
        if self._source.finished():
            if not self._open:
                return True
            self._await_disk()
            return False
        if not self.pool.wait_for_room(_WAIT_S) or not self._may_take():
            return False
        part = self._source.next_part(_WAIT_S if self._open else _IDLE_S)
        if part is not None:
            self._take(part)
        return False

    def _may_take(self) -> bool:
        """Whether another part is wanted now; waits a little when not."""
        if not self._source.keeps_parts:
            # A camera's part comes once: it gets its verdict, even when its result waits for the disk.
            return True
        if self._serving.current() is None:
            self._stopping.wait(_WAIT_S)
            return False
        if len(self._open) >= self.limits.max_unacknowledged or self._store.is_full:
            self._await_disk()
            return False
        return self._keeper.wait_for_room(_WAIT_S)

    def _await_disk(self) -> None:
        """Wait a little for the oldest result to reach the disk, or to be judged at all."""
        first = self._waiting[0].ticket if self._waiting else None
        if first is None or not first.wait(_WAIT_S):
            self._stopping.wait(_WAIT_S)

    def _take(self, part: Part) -> None:
        """Begin to inspect a part, unless it has a result."""
        key = canonical_key(part.source_key)
        pending = self._open.get(key)
        if pending is not None:
            self.counts.repeated += 1
            pending.repeats.append(part.without_picture())
            return
        margin_s = min(_MARGIN_S, _MARGIN * self.limits.deadline_ms / 1e3)
        deadline_s = part.started_s + self.limits.deadline_ms / 1e3 - margin_s
        stored = None if self._needs_no_question(part) else self._find(key, deadline_s)
        if stored is not None:
            self.counts.repeated += 1
            self._acknowledge(part, stored)
            return
        pending = self._open[key] = Pending(key, part.without_picture())
        self.pool.submit(part, deadline_s, pending, self.limits.max_pixels)

    def _needs_no_question(self, part: Part) -> bool:
        """Whether nobody inspected the part, or a camera's part has its verdict already: it has no picture."""
        return part.is_new or (part.fault is not None and not self._source.keeps_parts)

    def _find(self, key: str, deadline_s: float) -> Result | None:
        """The result of a part that was inspected before, if the spool says so in time.

        If it does not, the part is judged: a verdict in time matters more than a second one for the same part, which
        the spool does not take when it knows a first. At least half of what the source left is for the judge.

        Args:
            key: of the part.
            deadline_s: time.monotonic() by which it must be judged; when that has come, nobody is asked.
        """
        left_s = (deadline_s - time.monotonic()) / 2
        if left_s <= 0.0:
            return None
        try:
            return self._lookup.find(key, min(_FIND_S, _FIND_SHARE * self.limits.deadline_ms / 1e3, left_s))
        except Exception as error:  # noqa: BLE001  the part is here and needs a verdict in time
            self._count_fault("find", error)
            return None

    def _check_stuck(self, part: Part, pixels: np.ndarray) -> str | None:
        with self._stuck_lock:
            return self.stuck.check(pixels, part.view or "")

    def _tell(self, slot: Slot) -> None:
        """Tell the line, and nothing else. Runs in the pool's threads, one at a time."""
        sequence, synced = self._store.reserve(), self._clock.synced()
        try:
            result = conclude(slot, sequence, self._thing, self._line, synced)
        except ResultError as error:
            self._count_fault("result", error)
            slot.judgement = failed("internal", f"{slot.part.name}: {error}")
            result = conclude(slot, sequence, self._thing, self._line, synced)
        self._guarded("output", lambda: self._outputs.signal(result))
        self._keeper.add(slot, result)

    def _keep(self, slot: Slot, result: Result) -> None:
        """Keep the image, hand the result to the spool. Runs in the keeper's thread, after the line was told."""
        pending: Pending = slot.tag
        image = self._guarded("review", lambda: self.review.keep(result, slot.part, time.monotonic()))
        try:
            if slot.part.data is not None:
                result = dataclasses.replace(result, image_sha256=hashlib.sha256(slot.part.data).hexdigest())
            pending.statistics = slot.judgement.statistics if slot.judgement is not None else None
            pending.ticket = self._store.put(result, image, reserved=True)
            pending.result = pending.ticket.result
            pending.package = slot.served.digest if slot.served is not None else None
        except Exception as error:  # noqa: BLE001  this part has no stored result; the next ones will
            self._count_fault("store", error)
        judged, on_judged = pending.result, self._on_judged
        if judged is not None and on_judged is not None:
            self._guarded("shadow", lambda: on_judged(slot, judged, image is not None))
        self._given.append(pending)

    def _collect(self) -> None:
        """Show new results; acknowledge those on the disk."""
        while self._given:
            pending = self._given.popleft()
            self.counts.inspected += 1
            if pending.result is None:  # not acknowledged: a folder's part comes again after a restart
                self.counts.unacknowledged += 1
                self._forget(pending)
                continue
            self._waiting.append(pending)
            if self._on_result is not None:
                self._on_result(pending, pending.result)
        while self._waiting:
            pending = self._waiting[0]
            assert pending.ticket is not None
            if not pending.ticket.durable:
                enough = len(self._waiting) <= self.limits.max_unacknowledged
                if not pending.ticket.dropped and (self._source.keeps_parts or enough):
                    break
                self.counts.unacknowledged += 1
                self._forget(self._waiting.popleft())
                continue
            self._waiting.popleft()
            self._forget(pending)
            for part in (pending.part, *pending.repeats):
                self._acknowledge(part, pending.ticket.result)

    def _forget(self, pending: Pending) -> None:
        self._open.pop(pending.key, None)

    def _acknowledge(self, part: Part, result: Result) -> None:
        self._guarded("acknowledge", lambda: self._source.acknowledge(part, result))
        self.counts.acknowledged += 1

    def _guarded(self, place: str, call: Callable[[], KeptImage | None]) -> KeptImage | None:
        """Call something that must not stop the part: a fault is counted."""
        try:
            return call()
        except Exception as error:  # noqa: BLE001  see above
            self._count_fault(place, error)
            return None

    def _count_dropped_picture(self) -> None:
        self.counts.faults["picture"] += 1

    def _count_fault(self, place: str, error: Exception) -> None:
        self.counts.faults[place] += 1
        _log.error("event=fault place=%s error=%r", place, f"{type(error).__name__}: {error}", exc_info=error)

    def _finish(self) -> None:
        """Give the parts in hand their verdicts, and acknowledge what reaches the disk."""
        self.pool.drain(self.limits.deadline_ms / 1e3 + 1.0)
        self._keeper.close(_KEEP_S)
        end_s = time.monotonic() + 5.0
        self._guarded("collect", self._collect)
        while self._waiting and time.monotonic() < end_s:
            ticket = self._waiting[0].ticket
            assert ticket is not None
            ticket.wait(max(0.0, end_s - time.monotonic()))
            before = len(self._waiting)
            self._guarded("collect", self._collect)
            if len(self._waiting) == before:  # done but not durable: the disk refuses
                break
        self._lookup.close()
        self.pool.close()
