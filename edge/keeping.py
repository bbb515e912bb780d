"""What comes after the signal to the line: encode and keep the image, hash the file, hand the result to the spool.

None of it is urgent and some of it is slow, so it has a thread of its own, which takes the parts in their order. What
waits for it is bounded: a folder's parts are then not taken, a camera's lose their pictures but not their results.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from edge.pool import Slot
from edge.results import Result

_log = logging.getLogger(__name__)

MOST_BYTES = 64_000_000  # of pictures that wait


class Keeper:
    """A queue of told parts, and the thread that keeps them.

    Args:
        keep: takes each part, in order, on the keeper's thread. Must not raise.
        on_drop: called when a part's picture is let go because too many wait. None: none is, and `wait_for_room` has
            to be heeded.
    """

    def __init__(self, keep: Callable[[Slot, Result], None], on_drop: Callable[[], None] | None = None) -> None:
        self._keep = keep
        self._on_drop = on_drop
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Slot, Result, int]] = deque()  # and what the picture takes; the first is at work
        self._bytes = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def add(self, slot: Slot, result: Result) -> None:
        """Take a part that the line was told of; returns at once."""
        with self._changed:
            size = slot.part.picture_bytes
            if self._on_drop is not None and self._bytes and self._bytes + size > MOST_BYTES:
                slot.part, size = slot.part.without_picture(), 0
                self._on_drop()
                _log.warning("event=picture_dropped part=%r waiting_bytes=%d", slot.part.name, self._bytes)
            self._waiting.append((slot, result, size))
            self._bytes += size
            self._changed.notify_all()

    def wait_for_room(self, timeout_s: float) -> bool:
        """True when another part may come."""
        with self._changed:
            return self._on_drop is not None or self._changed.wait_for(lambda: self._bytes < MOST_BYTES, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Keep what waits; after half of the time only the results, without pictures."""
        end_s = time.monotonic() + timeout_s
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: not self._waiting, timeout_s / 2):
                _log.warning("event=pictures_dropped parts=%d reason='the program ends'", len(self._waiting))
                for slot, _, _ in list(self._waiting)[1:]:
                    slot.part = slot.part.without_picture()
        self._thread.join(max(0.0, end_s - time.monotonic()))

    def _run(self) -> None:
        while self._keep_next():
            pass

    def _keep_next(self) -> bool:
        """Wait for a part and keep it; False when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return False
            slot, result, size = self._waiting[0]
        self._keep(slot, result)
        with self._changed:
            self._waiting.popleft()
            self._bytes -= size
            self._changed.notify_all()
        return True
