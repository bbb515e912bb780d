"""Prints beside the loop: a terminal, a pipe or a journal that takes nothing must not stop a line."""

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

_log = logging.getLogger(__name__)

MOST_LINES = 2000  # that wait for whoever reads; more are dropped and counted
_WARN_EVERY_S = 60.0


class Printer:
    """Lines on their way to a stream, and the thread that writes them. It is a stream itself, for logs.

    Args:
        stream: such as sys.stdout. When whoever reads it is gone, nothing more is printed.
        warn: log that lines were dropped; not for the stream that the log itself goes to.
    """

    def __init__(self, stream: TextIO, warn: bool = True) -> None:
        self._put = _writer(stream)
        self._warn = warn
        self._warned_s: float | None = None
        self._changed = threading.Condition()
        self._lines: deque[str] = deque()
        self._writing = False
        self._gone = False
        self.dropped = 0
        threading.Thread(target=self._run, name="printer", daemon=True).start()

    def write(self, text: str) -> int:
        """Take whole lines; returns at once."""
        with self._changed:
            full = len(self._lines) >= MOST_LINES
            self.dropped += full
            if not full and not self._gone:
                self._lines.append(text)
                self._changed.notify_all()
        if full and self._warn:
            self._tell_dropped()
        return len(text)

    def flush(self) -> None:
        """Nothing: lines are written as soon as they are taken."""

    def drain(self, timeout_s: float) -> bool:
        """Wait a little until all is written."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines and not self._writing, timeout_s)

    def _tell_dropped(self) -> None:
        now_s = time.monotonic()
        if self._warned_s is None or now_s - self._warned_s >= _WARN_EVERY_S:
            self._warned_s = now_s
            _log.warning("event=lines_dropped lines=%d reason='nobody takes what is printed'", self.dropped)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines)
                text = "".join(self._lines)
                self._lines.clear()
                self._writing = True
            try:
                self._put(text)
            except (OSError, ValueError):  # nobody reads any more; a closed stream is a ValueError
                with self._changed:
                    self._gone = True
                    self._lines.clear()


def _writer(stream: TextIO) -> Callable[[str], object]:
    """Writes to the stream's file past its buffer, whose lock a write that hangs would hold until the program's end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream without a file
        file = stream.fileno()
        stream.flush()

        def put(text: str) -> None:
            data = memoryview(text.encode(stream.encoding or "utf-8", "backslashreplace"))
            while data:
                data = data[os.write(file, data) :]

        return put
    return stream.write
